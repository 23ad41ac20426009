"""What a data set's voxels say: a fingerprint of each case, and what all of them have in common."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from pipeline import datasets
from pipeline.core.errors import UserError, few
from pipeline.core.params.blocks import MOST_CHANNELS, Dataset, Percentile, Window
from pipeline.core.pool import over_cases
from pipeline.datasets import check
from pipeline.datasets.base import CaseList, LabelMap, Raw, RawCase, together
from pipeline.imaging.channels import each
from pipeline.imaging.geometry import CANONICAL
from pipeline.imaging.intensity import Rules, each_rule
from pipeline.imaging.label_values import distinct, fractional, shown

MOST_PROBLEMS = 5  # that are printed; `hsam check` lists all of them
MOST_LABELS = 64  # values of label volumes that nothing names
CT_AIR = -500.0  # HU; scans whose darkest voxel lies below it are CT
# an axis is the one of the slices where its voxels are so much longer than those of the others
THICK = 1.5
# shares of the voxels of a case that show an organ, %
LABELLED = (0.5, 50.0, 99.5)
# plane to axes of slices (`pipeline.imaging.geometry`)
AXES = {"axial": CANONICAL, "coronal": "PIL", "sagittal": "LIP"}
PLANE = {**dict.fromkeys("SI", "axial"), **dict.fromkeys("AP", "coronal")}
PLANE |= dict.fromkeys("LR", "sagittal")
OUTLYING = 4.0  # median absolute deviations from which a value is far from the others'


@dataclass(frozen=True)
class Survey:
    """A data set, read from its first voxel to its last.

    Attributes:
        dataset: name and root, and the label map where the folder has none.
        title: what the data set calls itself.
        organs: names; `organs[k - 1]` is class k.
        rules: how the data set maps intensities of each channel, where nothing else is said.
        benchmark: whether the literature has a form for these data: rule, axes.
        test: cases that the data set or the literature tests on, of those that are there.
        folds: cases that each fold of the data's own cross-validation is scored on; empty: none.
        patients: case to what the cases of one patient share; empty: the files don't tell.
        cases: fingerprints (`check.fingerprint`), each also with "labelled", percentiles of the
            intensities of its organs in the first channel, and "organ_slices", along x, y and z the
            number of slices that show an organ.
    """

    dataset: Dataset
    title: str
    organs: tuple[str, ...]
    rules: tuple[Window | Percentile, ...]
    benchmark: bool
    test: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...]
    patients: Mapping[str, str]
    cases: tuple[dict[str, Any], ...]

    @property
    def ct(self) -> bool:
        """Whether all channels are CT: the data set says so, or their voxels do."""
        return all(
            rule.kind == "window" or median(c["minimum"] for c in self.of_channel(place)) < CT_AIR
            for place, rule in enumerate(self.rules)
        )

    @property
    def channels(self) -> list[str | int]:
        """Those that are used, where the data set has several."""
        return list(self.dataset.channels or ())

    def of_channel(self, place: int) -> list[dict[str, Any]]:
        """Of each case minimum, maximum and percentiles of a channel."""
        return [found.get("channels", [found])[place] for found in self.cases]

    @property
    def plane(self) -> str:
        """The plane in which most cases were acquired: axial, coronal or sagittal."""
        return Counter(map(_plane, self.cases)).most_common(1)[0][0]

    def sliced(self, axes: str) -> list[tuple[int, int, int, int]]:
        """For each case (slices, rows, columns, slices that show an organ) along such axes."""
        return [_sliced(found, axes) for found in self.cases]

    def in_plane_mm(self, axes: str) -> list[float]:
        """Longest voxel side in plane of each case, mm."""
        return [
            max(found["spacing_mm"][place] for place in _places(found, axes)[1:])
            for found in self.cases
        ]

    def volumes_ml(self) -> dict[str, dict[str, float]]:
        """Organ to volume in each case that shows it, ml."""
        return {
            organ: {
                found["case"]: round(
                    found["voxels"][organ] * float(np.prod(found["spacing_mm"])) / 1000, 3
                )
                for found in self.cases
                if found["voxels"][organ]
            }
            for organ in self.organs
        }

    def remarks(self) -> list[str]:
        """What a person should look at: what files leave open, and values far from the others'."""
        warned = {found["case"]: found["warnings"] for found in self.cases}
        remarks = together(warned)
        for organ, sizes in self.volumes_ml().items():
            if lacking := [c["case"] for c in self.cases if not c["voxels"][organ]]:
                remarks.append(f"{organ}: not in {few(lacking)}.")
            for case, value in _outliers(sizes).items():
                middle = median(sizes.values())
                remarks.append(
                    f"{case}: {organ} of {value:,.3f} ml, where the median is {middle:,.3f} ml."
                )
        return remarks

    def as_json(self) -> dict[str, Any]:
        """All of it, as plain JSON types."""
        return {
            "data_set": self.dataset.name,
            "title": self.title,
            "modality": "CT" if self.ct else "MR or other",
            "plane": self.plane,
            **({"channels": self.channels} if self.channels else {}),
            "organs": list(self.organs),
            "volumes_ml": self.volumes_ml(),
            "remarks": self.remarks(),
            "cases": list(self.cases),
        }


def survey(dataset: Dataset, jobs: int) -> Survey:
    """Read every case of a data set.

    Args:
        dataset: its name and root.
        jobs: processes.

    Raises:
        UserError: what `hsam check` would refuse, in a few sentences.
    """
    entry = datasets.get(dataset)
    dataset = with_channels(dataset)
    listed = entry.list_cases(dataset)
    problems = list(listed.problems)
    if lonely := [case for case, raw in listed.cases.items() if not _has_image(raw)]:
        where = listed.cases[lonely[0]].image
        problems.append(
            f"{dataset.root}: {len(lonely)} labels have no image ({few(lonely)}); expected the "
            f"first one at {where}; add the images or remove the labels."
        )
    if problems:
        raise UserError(_first(problems))
    if dataset.labels is None and not entry.names_labels:
        dataset = dataset.model_copy(update={"labels": _found_labels(dataset, listed, jobs)})
    labels, rule = entry.labels(dataset), entry.intensity(dataset)
    canonical = entry.canonical(dataset)
    folds = tuple(map(tuple, entry.folds(dataset)))
    work = {case: (raw, labels, rule) for case, raw in listed.cases.items()}
    found, problems = over_cases(survey_case, work, jobs, "init")
    if problems:
        raise UserError(_first(problems))
    return Survey(
        dataset,
        entry.title(dataset),
        labels.names,
        each_rule(rule),
        entry.published_axes is not None,
        tuple(case for case in found if canonical.role(case) == "test"),
        folds,
        entry.patients(dataset),
        tuple(found.values()),
    )


def with_channels(dataset: Dataset) -> Dataset:
    """The block with the channels to use by their names: those chosen, or all where they fit.

    Raises:
        UserError: a folder without a description that can be read; more channels than an encoder
            has inputs, of which none is chosen, or one that isn't there.
    """
    entry, wanted = datasets.get(dataset), dataset.channels
    if not Path(dataset.root).is_dir():
        return dataset
    if wanted is None and 1 < len(names := entry.channels(dataset)) <= MOST_CHANNELS:
        wanted = list(names)
    named = dataset.model_copy(update={"channels": wanted})
    chosen = list(entry.chosen_channels(named))
    return dataset.model_copy(update={"channels": chosen or None})


def _found_labels(dataset: Dataset, listed: CaseList, jobs: int) -> dict[str, Raw]:
    """A label map of the values in the label volumes, with names where a file has them."""
    work = {case: raw for case, raw in listed.cases.items() if raw.label is not None}
    found, problems = over_cases(label_values, work, jobs, "init: labels")
    values = sorted({value for inside in found.values() for value in inside} - {0})
    if not problems and not values:
        problems = [
            f"{dataset.root}: the label volumes hold nothing but 0; add the organs to them."
        ]
    if not problems and len(values) > MOST_LABELS:
        problems = [
            f"{dataset.root}: the label volumes hold {len(values)} values; expected at most "
            f"{MOST_LABELS}; are they images? Name the organs in dataset.labels, and use hsam run."
        ]
    if problems:
        raise UserError(_first(problems))
    names = datasets.get(dataset).label_names(dataset)
    return {names.get(value, f"label {value}"): value for value in values}


def _has_image(raw: RawCase) -> bool:
    return all(path.is_file() for path in raw.image_files)


def label_values(raw: RawCase) -> list[int]:
    """The values in a label volume."""
    label = raw.read_label(None)
    assert label is not None, "only cases with a label volume come here"
    found = distinct(label.array)
    if (odd := fractional(found)).size:
        raise UserError(
            f"{raw.case}: {raw.label}: expected whole numbers as labels, found {shown(odd)}."
        )
    return [int(value) for value in found]


def survey_case(arguments: tuple[RawCase, LabelMap, Rules]) -> dict[str, Any]:
    """The fingerprint of a case (see `Survey.cases`); its problems as a UserError."""
    raw, labels, rule = arguments
    found = check.inspect(raw, labels, rule)
    if found.problems or found.image is None or found.label is None:
        raise UserError(found.problems)
    classes = labels.apply(found.label.array)
    organ = classes > 0
    others = [tuple(o for o in range(3) if o != axis) for axis in range(3)]
    facts = check.fingerprint(raw.case, found.image, classes, labels)
    first = each(found.image.array)[0]
    values = np.percentile(first[organ], LABELLED) if organ.any() else ()
    facts["labelled"] = {
        f"{share:g}%": round(float(value), 3)
        for share, value in zip(LABELLED, values, strict=False)
    }
    facts["organ_slices"] = [int(organ.any(axis=axes).sum()) for axes in others]
    return {**facts, "warnings": found.warnings}


def _first(problems: list[str]) -> list[str]:
    """The first problems, and how many there are where that isn't all."""
    if len(problems) <= MOST_PROBLEMS:
        return problems
    more = f"{len(problems) - MOST_PROBLEMS} more problems; `hsam check` lists all of them."
    return [*problems[:MOST_PROBLEMS], more]


def _places(found: dict[str, Any], axes: str) -> tuple[int, int, int]:
    """Source axes of slices, rows and columns."""
    lines = {**dict.fromkeys("SI", 0), **dict.fromkeys("AP", 1), **dict.fromkeys("LR", 2)}
    source = [lines[letter] for letter in found["orientation"]]
    slices, rows, columns = (source.index(lines[letter]) for letter in axes)
    return slices, rows, columns


def _sliced(found: dict[str, Any], axes: str) -> tuple[int, int, int, int]:
    slices, rows, columns = _places(found, axes)
    shape = found["shape"]
    return shape[slices], shape[rows], shape[columns], found["organ_slices"][slices]


def _plane(found: dict[str, Any]) -> str:
    """The plane of a case: across its longest voxel side, axial where none stands out."""
    sides = found["spacing_mm"]
    order = sorted(range(3), key=lambda axis: sides[axis])
    if sides[order[2]] < THICK * sides[order[1]]:
        return "axial"
    return PLANE[found["orientation"][order[2]]]


def _outliers(values: dict[str, float]) -> dict[str, float]:
    """Those of the positive values that are far from the others, on a logarithmic scale."""
    if len(values) < 5:
        return {}
    logs = np.log(list(values.values()))
    distance = np.abs(logs - np.median(logs))
    spread = max(1.4826 * float(np.median(distance)), 0.05)
    far = distance > OUTLYING * spread
    return {case: value for (case, value), odd in zip(values.items(), far, strict=True) if odd}

"""What a data set's voxels say: a fingerprint of each case, and what all of them have in common."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np

from pipeline import datasets
from pipeline.core.errors import UserError, few, together
from pipeline.core.params.blocks import MOST_CHANNELS, Dataset, Percentile, Window
from pipeline.core.pool import over_cases
from pipeline.datasets import check
from pipeline.datasets.base import CaseList, LabelMap, Raw, RawCase
from pipeline.imaging.channels import each
from pipeline.imaging.display import OPPOSITE
from pipeline.imaging.geometry import BEGINS, CANONICAL
from pipeline.imaging.intensity import Rules, each_rule
from pipeline.imaging.label_values import distinct, fractional, shown
from pipeline.imaging.volumes import Volume
from pipeline.planning.sketches import Sketch, longest_side, sketch

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
# the least deviation that counts as usual: a twentieth, and 4 HU or % of the range
LEAST_SPREAD = {"logarithmic": 0.05, "linear": 4.0}
FEWEST_COMPARED = 5  # cases


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
        sketches: of the cases, in their order, of the first channel.
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
    sketches: tuple[Sketch, ...]

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

    def spacings_mm(self) -> dict[str, dict[str, float]]:
        """What is measured to its value in each case, mm: slices' distance, pixels' longer side."""
        axes = AXES[self.plane]
        names = [found["case"] for found in self.cases]
        apart = [found["spacing_mm"][_places(found, axes)[0]] for found in self.cases]
        return {
            f"distance of {self.plane} slices": dict(zip(names, apart, strict=True)),
            "side of pixels": dict(zip(names, self.in_plane_mm(axes), strict=True)),
        }

    def extents_mm(self) -> dict[str, dict[str, float]]:
        """Direction to the volume's length in it in each case, mm."""
        lengths: dict[str, dict[str, float]] = {}
        for place, letter in enumerate(CANONICAL):
            values = lengths[f"from {BEGINS[letter]} to {BEGINS[OPPOSITE[letter]]}"] = {}
            for found in self.cases:
                axis = _places(found, CANONICAL)[place]
                values[found["case"]] = found["spacing_mm"][axis] * found["shape"][axis]
        return lengths

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
        remarks = together({found["case"]: found["warnings"] for found in self.cases})
        for organ in self.organs:
            if lacking := [c["case"] for c in self.cases if not c["voxels"][organ]]:
                remarks.append(f"{organ}: not in {few(lacking)}.")
        far = self.far_from_others().items()
        return remarks + together({case: [f"{words}." for words in found] for case, found in far})

    def far_from_others(self) -> dict[str, list[str]]:
        """Case to how it stands out, a few words each: spacing, size, intensity, organ volumes."""
        found: dict[str, list[str]] = {case["case"]: [] for case in self.cases}
        for what, values in (self.spacings_mm() | self.extents_mm()).items():
            for case, words in _compared(values, "mm").items():
                found[case].append(f"{what} {words}")
        unit = "HU" if self.ct else "% of the way from dark to bright"
        for case, words in _compared(self.brightness(), unit, scale="linear").items():
            found[case].append(f"median of the organs {words}")
        for organ, sizes in self.volumes_ml().items():
            for case, words in _compared(sizes, "ml").items():
                found[case].append(f"{organ} {words}")
        return {case: words for case, words in found.items() if words}

    def brightness(self) -> dict[str, float]:
        """Median of the organs' voxels in each case that shows one, in HU for CT; else the place
        between the volume's percentiles 0.5 and 99.5, %.
        """
        values = {}
        for case in self.cases:
            if not case["labelled"]:
                continue
            middle, whole = case["labelled"]["50%"], case["percentiles"]
            width = whole["99.5%"] - whole["0.5%"]
            if self.ct:
                values[case["case"]] = middle
            elif width > 0:
                values[case["case"]] = 100 * (middle - whole["0.5%"]) / width
        return values

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
    longest = longest_side(len(listed.cases))
    work = {case: (raw, labels, rule, longest) for case, raw in listed.cases.items()}
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
        tuple(facts for facts, _ in found.values()),
        tuple(sketch for _, sketch in found.values()),
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


def survey_case(
    arguments: tuple[RawCase, LabelMap, Rules, int],
) -> tuple[dict[str, Any], Sketch]:
    """The fingerprint of a case (see `Survey.cases`) and its sketch; its problems as a UserError.

    Args:
        arguments: the case, how its labels and intensities are mapped, and the longest side of the
            sketch's picture, pixels.
    """
    raw, labels, rule, longest = arguments
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
    facts["warnings"] = found.warnings
    shown_one = Volume(first, found.image.geometry)
    axes = AXES[_plane(facts)]
    return facts, sketch(shown_one, classes, facts, axes, each_rule(rule)[0], longest)


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


def _compared(
    values: Mapping[str, float], unit: str, scale: Literal["logarithmic", "linear"] = "logarithmic"
) -> dict[str, str]:
    """Those of the values that are far from the others, in words beside the median.

    Args:
        values: of the cases; positive on a logarithmic scale.
        unit: of the values.
        scale: on which distances are measured, with the least spread that LEAST_SPREAD has for it.
    """
    if len(values) < FEWEST_COMPARED:
        return {}
    numbers = np.array(list(values.values()))
    places = np.log(numbers) if scale == "logarithmic" else numbers
    distance = np.abs(places - np.median(places))
    spread = max(1.4826 * float(np.median(distance)), LEAST_SPREAD[scale])
    middle = float(np.median(numbers))
    return {
        case: f"{_digits(value)} {unit}, where the median is {_digits(middle)} {unit}"
        for (case, value), far in zip(values.items(), distance, strict=True)
        if far > OUTLYING * spread
    }


def _digits(value: float) -> str:
    """Three digits, or whole."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

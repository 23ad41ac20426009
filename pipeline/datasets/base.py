"""What every data set of the registry answers, and the types of the answers."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Dataset, Percentile, Window

# [-125, 275] HU is what the literature on Synapse uses; abdominal soft tissue lies within.
CT_WINDOW = Window(kind="window", low=-125.0, high=275.0)
# MR has no units: the darkest and brightest half percent of the volume's voxels are clipped, as
# promptable models for medical images do (MedSAM).
MR_PERCENTILES = Percentile(kind="percentile", low=0.5, high=99.5)
# class indices are kept in one byte
MOST_ORGANS = 255
CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class RawCase:
    """One subject's raw files; they need not exist.

    Attributes:
        case: the id, a plain file name.
        image: the image volume.
        label: the label volume; None where there is no such file.
        image_key, label_key: names inside an HDF5 file.
        image_voxels, label_voxels: the file that a header without voxels (.mhd) points to.
    """

    case: str
    image: Path
    label: Path | None
    image_key: str | None = None
    label_key: str | None = None
    image_voxels: Path | None = None
    label_voxels: Path | None = None

    @property
    def image_files(self) -> tuple[Path, ...]:
        """The files that hold the image."""
        return _present(self.image, self.image_voxels)

    @property
    def label_files(self) -> tuple[Path, ...]:
        """The files that hold the label."""
        return _present(self.label, self.label_voxels)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that the case is read from, each once."""
        return tuple(dict.fromkeys(self.image_files + self.label_files))


@dataclass(frozen=True)
class LabelMap:
    """Raw label values to class indices 1..K; everything else is background or a mistake.

    Attributes:
        organs: organ to its raw values, in the order of the class indices.
        ignored: raw values that are known and become background.
        others: what a value outside the map and `ignored` is: an error or background.
    """

    organs: Mapping[str, tuple[int, ...]]
    ignored: frozenset[int] = frozenset()
    others: Literal["error", "background"] = "error"

    @property
    def names(self) -> tuple[str, ...]:
        """Organ names; `names[k - 1]` is class k."""
        return tuple(self.organs)

    def unknown(self, values: Iterable[int]) -> list[int]:
        """The values that the map has no place for, sorted."""
        if self.others == "background":
            return []
        known = self.ignored.union(*self.organs.values())
        return sorted({int(value) for value in values} - {0} - known)

    def apply(self, labels: NDArray) -> NDArray[np.uint8]:
        """Class indices of the same shape; 0 is the background."""
        classes = np.zeros_like(labels, np.uint8)
        for index, raws in enumerate(self.organs.values(), 1):
            for raw in raws:
                classes[labels == raw] = index
        return classes


@dataclass(frozen=True)
class CanonicalSplit:
    """The split that the literature uses; ids that it doesn't name are in neither part."""

    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def role(self, case: str) -> Literal["train", "test"] | None:
        """The part that a case belongs to."""
        if case in self.test:
            return "test"
        return "train" if case in self.train else None


@dataclass
class Scan:
    """What lies in a data set's folder: cases in order of their ids, and what is wrong."""

    cases: dict[str, RawCase] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, raw: RawCase) -> None:
        """Take a case in, unless its id is not usable or already taken."""
        known = next((key for key in self.cases if key.lower() == raw.case.lower()), None)
        if not CASE_ID.fullmatch(raw.case):
            self.problems.append(
                f"{raw.image}: case id {raw.case!r} must be letters, digits, '_', '.' and '-', "
                "the first a letter or digit; rename the files."
            )
        elif known is not None:
            self.problems.append(
                f"{raw.image}: case id {raw.case} is there twice, also as "
                f"{self.cases[known].image}; remove or rename one."
            )
        else:
            self.cases[raw.case] = raw


class DataSet(ABC):
    """One entry of the registry.

    Attributes:
        name: as in `dataset.name` of the parameters.
        layout: the files below the root, for messages.
        source: where the data come from, for messages.
        remark: what a reader of scores on these data must know, for reports; None: nothing.
    """

    name: str
    layout: str
    source: str
    remark: str | None = None

    @abstractmethod
    def _scan(self, dataset: Dataset) -> Scan:
        """All cases under an existing root, `dataset.cases` not yet applied."""

    @abstractmethod
    def _labels(self, dataset: Dataset) -> LabelMap:
        """The data set's own label map."""

    def intensity(self, dataset: Dataset) -> Window | Percentile:
        """The rule that brings the data set's images to [0, 1]; here the one for CT."""
        return CT_WINDOW

    def canonical(self, dataset: Dataset) -> CanonicalSplit:
        """The split of the literature; empty where there is none."""
        return CanonicalSplit()

    def scan(self, dataset: Dataset) -> Scan:
        """The cases to use, and everything wrong with the folder; raises nothing."""
        root = Path(dataset.root)
        if not root.is_dir():
            problem = f"{root}: there is no such folder (dataset.root). {self._advice()}"
            return Scan(problems=[problem])
        try:
            found = self._scan(dataset)
        except OSError as error:
            return Scan(problems=[f"{error.filename}: can't be read ({error.strerror})."])
        if not found.cases and not found.problems:
            found.problems.append(f"{root}: no case found there. {self._advice()}")
        return chosen(found, dataset)

    def find(self, dataset: Dataset) -> dict[str, RawCase]:
        """Case id to raw files, sorted by id.

        Raises:
            UserError: the root or named cases are missing, ids are unusable or there twice.
        """
        found = self.scan(dataset)
        if found.problems:
            raise UserError(found.problems)
        return found.cases

    def expected_files(self, dataset: Dataset) -> dict[str, RawCase]:
        """The cases as a workflow engine must know them before any stage runs."""
        return self.find(dataset)

    def labels(self, dataset: Dataset) -> LabelMap:
        """The label map to use: `dataset.labels` and `dataset.other_labels` over the own one.

        Raw labels that the data set knows and `dataset.labels` leaves out become background.

        Raises:
            UserError: a raw label is claimed twice, is negative or is 0, the background.
        """
        if dataset.labels is None:
            own = self._labels(dataset)
        else:
            organs = _parse_labels(dataset.labels)
            own = LabelMap(organs, self._known(dataset))
        if len(own.organs) > MOST_ORGANS:
            raise UserError(
                f"dataset: expected at most {MOST_ORGANS} organs, found {len(own.organs)}."
            )
        return LabelMap(own.organs, own.ignored, dataset.other_labels or own.others)

    def _known(self, dataset: Dataset) -> frozenset[int]:
        """Raw labels that may turn up in the data set's files."""
        own = self._labels(dataset)
        return own.ignored.union(*own.organs.values())

    def _advice(self) -> str:
        return f"Expected below it: {self.layout}. Data: {self.source}."


def chosen(found: Scan, dataset: Dataset) -> Scan:
    """The scan with the cases that `dataset.cases` names, sorted; an unknown one is a problem."""
    wanted = found.cases if dataset.cases is None else dataset.cases
    missing = [
        f"{dataset.root}: case {case} (dataset.cases) is not there; found {_few(found.cases)}."
        for case in wanted
        if case not in found.cases
    ]
    cases = {case: found.cases[case] for case in sorted(found.cases) if case in wanted}
    return Scan(cases, found.problems + missing if found.cases else found.problems)


def file_cases(folder: Path, pattern: str) -> dict[str, list[Path]]:
    """Files of a folder whose whole name matches `pattern`, by its group `case`, sorted."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = re.fullmatch(pattern, path.name)
        # macOS leaves ._ files beside the real ones
        if match and not path.name.startswith("."):
            found.setdefault(match["case"], []).append(path)
    return found


def pair(
    images: Mapping[str, list[Path]],
    labels: Mapping[str, list[Path]],
    expected: Callable[[str], Path],
) -> Scan:
    """Images and labels of one id put together.

    Args:
        images, labels: case id to the files found for it.
        expected: case id to the path of the image that a label without one is missing.
    """
    scan = Scan()
    for case in sorted(set(images) | set(labels)):
        found = images.get(case) or [expected(case)]
        for kind, paths in (("image", found), ("label", labels.get(case, []))):
            if len(paths) > 1:
                names = ", ".join(path.name for path in paths)
                scan.problems.append(
                    f"{paths[0].parent}: case {case} has more than one {kind} file ({names}); "
                    "remove all but one."
                )
        scan.add(RawCase(case, found[0], next(iter(labels.get(case, [])), None)))
    return scan


def _present(*paths: Path | None) -> tuple[Path, ...]:
    return tuple(path for path in paths if path is not None)


def _parse_labels(labels: Mapping[str, int | list[int]]) -> dict[str, tuple[int, ...]]:
    organs = {
        organ: (raw,) if isinstance(raw, int) else tuple(raw) for organ, raw in labels.items()
    }
    problems: list[str] = []
    owner: dict[int, str] = {}
    if not organs:
        problems.append("dataset.labels: names no organ; null takes the data set's own map.")
    for organ, raws in organs.items():
        if not raws:
            problems.append(f"dataset.labels.{organ}: names no raw label.")
        for raw in raws:
            if raw <= 0:
                problems.append(f"dataset.labels.{organ}: {raw} is not a label above 0.")
            if raw in owner:
                problems.append(
                    f"dataset.labels.{organ}: raw label {raw} already belongs to {owner[raw]}."
                )
            owner[raw] = organ
    if problems:
        raise UserError(problems)
    return organs


def _few(names: Iterable[str], most: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")

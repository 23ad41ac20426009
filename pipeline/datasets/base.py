"""The interface of a data set: where its files are, what its labels mean, how it is split."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.core import files
from pipeline.core.errors import UserError, few
from pipeline.core.params.blocks import Dataset, Percentile, Window
from pipeline.datasets import channels
from pipeline.imaging.channels import ChannelFile
from pipeline.imaging.intensity import Rules

if TYPE_CHECKING:
    from pipeline.imaging.volumes import Volume

# the window for abdominal soft tissue, HU, in the literature on Synapse
CT_WINDOW = Window(kind="window", low=-125.0, high=275.0)
# MR has no units: the darkest and the brightest half percent of a volume's voxels are clipped, as
# in MedSAM
MR_PERCENTILES = Percentile(kind="percentile", low=0.5, high=99.5)
DEEPEST = 6  # folders below the root that are searched
MOST_ORGANS = 255  # class indices are stored as uint8
CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# of `dataset.labels`: the raw label or labels of an organ, numbers or names
Raw = int | str | list[int | str]
# characters of a case id: file systems take names of 255 bytes, and files are named after cases
# with endings, hashes and the suffixes of temporary names
LONGEST_ID = 200


@dataclass(frozen=True)
class RawCase:
    """Paths of the raw files of one subject; they need not exist.

    Attributes:
        case: id of the case, usable as a file name.
        image: the image volume.
        label: the label volume, None where there is none.
        image_key, label_key: names of the data sets inside an HDF5 file.
        image_voxels, label_voxels: files with the voxels, where the header is a file apart (.mhd).
        channels: where the chosen ones of several channels are, `image` the first one's file;
            empty: `image` holds one channel alone.
    """

    case: str
    image: Path
    label: Path | None
    image_key: str | None = None
    label_key: str | None = None
    image_voxels: Path | None = None
    label_voxels: Path | None = None
    channels: tuple[ChannelFile, ...] = ()

    @property
    def image_files(self) -> tuple[Path, ...]:
        """The files of the image: volume or header, and voxels where they are apart."""
        if self.channels:
            return tuple(dict.fromkeys(channel.path for channel in self.channels))
        return _present(self.image, self.image_voxels)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The file of each channel, with its place in one that holds several, for messages."""
        return tuple(map(str, self.channels)) or (str(self.image),)

    @property
    def label_files(self) -> tuple[Path, ...]:
        """The files of the label, as for the image; empty where there is no label."""
        return _present(self.label, self.label_voxels)

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the case, each once."""
        return tuple(dict.fromkeys(self.image_files + self.label_files))

    def read_image(self) -> "Volume":
        """The image, all channels that are used; raises as `pipeline.imaging.volumes.read`."""
        # imports every library that reads images, which listing cases doesn't need
        from pipeline.imaging import channel_volumes, volumes

        if self.channels:
            return channel_volumes.read(self.channels)
        return volumes.read(self.image, self.image_key)

    def read_label(self, image: "Volume | None") -> "Volume | None":
        """The raw labels; raises as `pipeline.imaging.volumes.read`.

        Args:
            image: the case's, None where it can't be read.

        Returns:
            None where there is no label volume, or none without the image's grid.
        """
        from pipeline.imaging import volumes

        return None if self.label is None else volumes.read(self.label, self.label_key)


@dataclass(frozen=True)
class LabelMap:
    """Which raw label values are which class, 1 to K; 0 is the background.

    Attributes:
        organs: organ to its raw values, in the order of the class indices.
        ignored: raw values that may occur and become background.
        others: whether any other raw value is an error or becomes background.
    """

    organs: Mapping[str, tuple[int, ...]]
    ignored: frozenset[int] = frozenset()
    others: Literal["error", "background"] = "error"

    @property
    def names(self) -> tuple[str, ...]:
        """Organ names; `names[k - 1]` is class k."""
        return tuple(self.organs)

    def unknown(self, values: Iterable[int]) -> list[int]:
        """Those of the values that are an error under this map, sorted."""
        if self.others == "background":
            return []
        known = self.ignored.union(*self.organs.values())
        return sorted({int(value) for value in values} - {0} - known)

    def apply(self, labels: NDArray) -> NDArray[np.uint8]:
        """Raw label values of any shape -> class indices."""
        classes = np.zeros_like(labels, np.uint8)
        for index, raws in enumerate(self.organs.values(), 1):
            for raw in raws:
                classes[labels == raw] = index
        return classes


@dataclass(frozen=True)
class CanonicalSplit:
    """Case ids of the split used in the literature; other cases are in neither part."""

    train: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

    def role(self, case: str) -> Literal["train", "test"] | None:
        """The part of a case, None where it is in neither."""
        if case in self.test:
            return "test"
        return "train" if case in self.train else None


@dataclass
class CaseList:
    """The cases in a data set's folder, and everything wrong with the folder.

    Attributes:
        cases: case id to raw files.
        problems: one sentence each.
    """

    cases: dict[str, RawCase] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, raw: RawCase) -> None:
        """Add a case; an id that is not usable or already taken becomes a problem instead."""
        same = next((case for case in self.cases if case.lower() == raw.case.lower()), None)
        if not CASE_ID.fullmatch(raw.case):
            self.problems.append(
                f"{raw.image}: case id {raw.case!r} must be letters, digits, '_', '.' and '-', "
                "the first a letter or digit; rename the files."
            )
        elif len(raw.case) > LONGEST_ID:
            self.problems.append(
                f"{raw.image.parent}: case id {raw.case[:20]}... has {len(raw.case)} characters; "
                f"expected at most {LONGEST_ID}, for files are named after it; rename the files."
            )
        elif same is not None:
            self.problems.append(
                f"{raw.image}: case id {raw.case} is there twice, also as "
                f"{self.cases[same].image}; remove or rename one."
            )
        else:
            self.cases[raw.case] = raw


class DataSet(ABC):
    """A data set of the registry.

    Attributes:
        name: as in `dataset.name` of the parameters.
        called: what people call it; None: its name.
        layout: paths of the files below the root, for messages.
        source: where to get the data, for messages.
        remark: a caveat on scores on these data, for reports; None: there is none.
        published_axes: axes of slices (`pipeline.imaging.geometry`) of the data that the published
            H-SAM code prepares; None: it doesn't know the data set.
        generic: whether its files can look like those of others, which then go before it.
        names_labels: whether it says what labels mean where `dataset.labels` doesn't.
    """

    name: str
    called: str | None = None
    layout: str
    source: str
    remark: str | None = None
    published_axes: str | None = None
    generic: bool = False
    names_labels: bool = True

    @abstractmethod
    def _find_cases(self, dataset: Dataset) -> CaseList:
        """All cases under an existing root, also those that `dataset.cases` leaves out."""

    @abstractmethod
    def _labels(self, dataset: Dataset) -> LabelMap:
        """The label map of the data set, without `dataset.labels` and `dataset.other_labels`."""

    def channels(self, dataset: Dataset) -> tuple[str, ...]:
        """Names of the channels that each scan has, in their order; empty: one without a name."""
        return ()

    def chosen_channels(self, dataset: Dataset) -> dict[str, int]:
        """The channels that are used (`pipeline.datasets.channels.chosen`)."""
        return channels.chosen(self.channels(dataset), dataset)

    def intensity(self, dataset: Dataset) -> Rules:
        """The rule that maps the images to [0, 1]; here the window for abdominal CT."""
        return CT_WINDOW

    def recognises(self, dataset: Dataset) -> bool:
        """Whether the files below an existing root look like this data set's."""
        return bool(self._find_cases(dataset).cases)

    def label_names(self, dataset: Dataset) -> dict[int, str]:
        """Raw label to name where files beside the volumes tell, for `names_labels` false."""
        return {}

    def patients(self, dataset: Dataset) -> Mapping[str, str]:
        """Case to what the cases of one patient share, where files tell; empty: none do."""
        return {}

    def title(self, dataset: Dataset) -> str:
        """What people call these data."""
        return self.called or self.name

    def canonical(self, dataset: Dataset) -> CanonicalSplit:
        """The split used in the literature; empty where there is none."""
        return CanonicalSplit()

    def folds(self, dataset: Dataset) -> Sequence[Sequence[str]]:
        """Cases that each fold of a cross-validation is scored on, where files beside the volumes
        tell; empty: none do.

        Raises:
            UserError: files that can't be used.
        """
        return ()

    def list_cases(self, dataset: Dataset) -> CaseList:
        """The cases to use and everything wrong with the folder; raises no UserError."""
        root = Path(dataset.root)
        if not root.is_dir():
            problem = f"{root}: there is no such folder (dataset.root). {self._advice()}"
            return CaseList(problems=[problem])
        try:
            self.chosen_channels(dataset)
            found = self._find_cases(dataset)
        except UserError as error:
            return CaseList(problems=error.problems)
        except OSError as error:
            return CaseList(problems=[f"{error.filename}: can't be read ({error.strerror})."])
        if not found.cases and not found.problems:
            found.problems.append(f"{root}: no case found there. {self._advice()}")
        return chosen(found, dataset)

    def find(self, dataset: Dataset) -> dict[str, RawCase]:
        """Case id to raw files, sorted by id.

        Raises:
            UserError: everything wrong with the folder: no root, no cases, cases of
                `dataset.cases` that are not there, ids that are unusable or not unique.
        """
        found = self.list_cases(dataset)
        if found.problems:
            raise UserError(found.problems)
        return found.cases

    def expected_files(self, dataset: Dataset) -> dict[str, RawCase]:
        """Case id to raw files, known before any stage runs; raises as `find`."""
        return self.find(dataset)

    def labels(self, dataset: Dataset) -> LabelMap:
        """The label map: that of the parameters, or else the data set's.

        Raw labels of the data set that `dataset.labels` doesn't name become background.

        Raises:
            UserError: a raw label belongs to two organs, or isn't above 0; too many organs.
        """
        if dataset.labels is None:
            labels = self._labels(dataset)
        else:
            labels = self._chosen_labels(dataset, dataset.labels)
        if len(labels.organs) > MOST_ORGANS:
            raise UserError(
                f"dataset: expected at most {MOST_ORGANS} organs, found {len(labels.organs)}."
            )
        return replace(labels, others=dataset.other_labels or labels.others)

    def _chosen_labels(self, dataset: Dataset, labels: Mapping[str, Raw]) -> LabelMap:
        """The map that `dataset.labels` gives, here by numbers of raw labels."""
        return LabelMap(_parse_labels(labels), self._known(dataset))

    def _known(self, dataset: Dataset) -> frozenset[int]:
        """Raw labels that may occur in the files, besides 0."""
        labels = self._labels(dataset)
        return labels.ignored.union(*labels.organs.values())

    def _advice(self) -> str:
        """What belongs into the folder, and where to get it, for messages."""
        return f"Expected below it: {self.layout}. Data: {self.source}."


def chosen(found: CaseList, dataset: Dataset) -> CaseList:
    """The cases that `dataset.cases` names, sorted; one that is not there becomes a problem."""
    wanted = found.cases if dataset.cases is None else dataset.cases
    missing = [
        f"{dataset.root}: case {case} (dataset.cases) is not there; found {few(found.cases)}."
        for case in wanted
        if case not in found.cases
    ]
    cases = {case: found.cases[case] for case in sorted(found.cases) if case in wanted}
    return CaseList(cases, found.problems + missing if found.cases else found.problems)


def file_cases(folder: Path, pattern: str) -> dict[str, list[Path]]:
    """Case id to the files of a folder whose whole name matches a pattern, sorted.

    Args:
        folder: need not exist.
        pattern: regular expression with a group `case`.
    """
    found: dict[str, list[Path]] = {}
    for path in files.entries(folder) if folder.is_dir() else []:
        match = re.fullmatch(pattern, path.name)
        # macOS leaves ._ files beside the real ones
        if match and not path.name.startswith("."):
            found.setdefault(match["case"], []).append(path)
    return found


def walk(root: Path) -> Iterator[Path]:
    """All files below a folder, sorted; hidden ones and their folders are left out."""
    for folder, folders, names in os.walk(root):
        depth = len(Path(folder).relative_to(root).parts)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and depth < DEEPEST
        )
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def pair(
    images: Mapping[str, list[Path]],
    labels: Mapping[str, list[Path]],
    expected: Callable[[str], Path],
) -> CaseList:
    """Pair the images and labels of the same id.

    Args:
        images, labels: case id to the files found; more than one is a problem.
        expected: case id to the path where its image should be, for labels without one.
    """
    found = CaseList()
    for case in sorted(set(images) | set(labels)):
        of_image, of_label = images.get(case) or [expected(case)], labels.get(case, [])
        for kind, paths in (("image", of_image), ("label", of_label)):
            if len(paths) > 1:
                names = ", ".join(path.name for path in paths)
                found.problems.append(
                    f"{paths[0].parent}: case {case} has more than one {kind} file ({names}); "
                    "remove all but one."
                )
        found.add(RawCase(case, of_image[0], next(iter(of_label), None)))
    return found


def _present(*paths: Path | None) -> tuple[Path, ...]:
    return tuple(path for path in paths if path is not None)


def raw_labels(labels: Mapping[str, Raw]) -> dict[str, list[int | str]]:
    """Organ to raw labels from `dataset.labels`, lists all of them."""
    return {organ: raw if isinstance(raw, list) else [raw] for organ, raw in labels.items()}


def _parse_labels(labels: Mapping[str, Raw]) -> dict[str, tuple[int, ...]]:
    """Organ to raw labels from `dataset.labels`; UserError with everything wrong in it."""
    organs: dict[str, tuple[int, ...]] = {}
    problems: list[str] = []
    owner: dict[int, str] = {}
    if not labels:
        problems.append("dataset.labels: names no organ; null takes the data set's own map.")
    for organ, raws in raw_labels(labels).items():
        if not raws:
            problems.append(f"dataset.labels.{organ}: names no raw label.")
        organs[organ] = tuple(raw for raw in raws if isinstance(raw, int))
        for raw in raws:
            if isinstance(raw, str):
                problems.append(
                    f"dataset.labels.{organ}: expected numbers, the raw labels of these files, "
                    f"found {raw!r}; names are for DICOM alone."
                )
                continue
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

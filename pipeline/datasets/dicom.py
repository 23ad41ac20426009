"""Folders of DICOM series with DICOM Segmentations, as PACS and public archives export them.

A case is an image series that a Segmentation refers to; folders may be of any depth and names.
Segments are told by their SegmentLabel, whatever their number in a file.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.core.errors import UserError, few
from pipeline.core.params.blocks import Dataset, Percentile, Window
from pipeline.datasets.base import (
    CT_WINDOW,
    MR_PERCENTILES,
    CaseList,
    DataSet,
    LabelMap,
    Raw,
    RawCase,
    raw_labels,
    walk,
)
from pipeline.imaging.dicom.images import look
from pipeline.imaging.dicom.objects import (
    Object,
    Segmented,
    belonging,
    identify,
    is_segmentation,
    names_patient,
    segment_name,
)
from pipeline.imaging.dicom.segments import read_labels
from pipeline.imaging.dicom.series import Series
from pipeline.imaging.dicom.stack import read_series
from pipeline.imaging.scans import plain_name
from pipeline.imaging.volumes import Volume

DIGITS = 8  # of a series' hash in a case id
HIDDEN = "its folder holds the patient's name, number or date of birth, so its id is a hash."


@dataclass(frozen=True)
class DicomCase(RawCase):
    """An image series and the Segmentations of it.

    Attributes:
        series: its files and theirs.
        numbers: segment's name to its raw label; other segments are background.
        remark: on its id, for people; empty: there is none.
    """

    series: Segmented | None = None
    numbers: tuple[tuple[str, int], ...] = ()
    remark: str = ""

    @property
    def image_files(self) -> tuple[Path, ...]:
        """The files of the series."""
        return tuple(item.path for item in self._series.images)

    @property
    def label_files(self) -> tuple[Path, ...]:
        """The Segmentations."""
        return tuple(item.path for item in self._series.segmentations)

    @property
    def _series(self) -> Segmented:
        assert self.series is not None, "it has a default because fields before it have"
        return self.series

    def read_image(self) -> Volume:
        """The images as a volume (column, row, slice); raises as `dicom.stack.read_series`."""
        uid = self._series.images[0].series
        images = (image for path in self.image_files for image in look(path)[0])
        # a file of several series, one a frame, doesn't exist: what `look` gives is the series'
        volume, _, warnings = read_series(
            Series(self.image, tuple(i for i in images if i.header.get("SeriesInstanceUID") == uid))
        )
        remarks = (self.remark,) if self.remark else ()
        return replace(volume, warnings=(*remarks, *warnings))

    def read_label(self, image: Volume | None) -> Volume | None:
        """The segments as labels on the image's grid; raises as `dicom.segments.read_labels`."""
        if image is None:
            return None
        labels = read_labels(self._series.segmentations, image.geometry, dict(self.numbers))
        return Volume(labels, image.geometry)


class Dicom(DataSet):
    """DICOM series with Segmentations; classes are in the order of the segments' names."""

    name = "dicom"
    layout = "DICOM series and DICOM Segmentations (SEG) that refer to them"
    source = "your own (docs/data.md)"
    generic = True

    def recognises(self, dataset: Dataset) -> bool:
        """Whether there is a Segmentation, whatever is wrong with it."""
        objects, _ = _objects(Path(dataset.root))
        return any(map(is_segmentation, objects))

    def title(self, dataset: Dataset) -> str:
        """The folder's name."""
        return Path(dataset.root).resolve().name

    def intensity(self, dataset: Dataset) -> Window | Percentile:
        """The window for CT where all series are CT, else the percentiles for MR."""
        modalities = {
            item.images[0].modality for item in self._series(dataset) if item.images[0].modality
        }
        return CT_WINDOW if modalities == {"CT"} else MR_PERCENTILES

    def patients(self, dataset: Dataset) -> Mapping[str, str]:
        """Case to a hash that the cases of one patient share."""
        found = self.list_cases(dataset).cases
        return {
            case: raw.series.images[0].patient
            for case, raw in found.items()
            if isinstance(raw, DicomCase) and raw.series is not None
        }

    def _find_cases(self, dataset: Dataset) -> CaseList:
        root = Path(dataset.root)
        objects, problems = _objects(root)
        series, more = belonging(objects)
        found = CaseList(problems=problems + more)
        try:
            numbers = self._numbers(dataset, series)
        except UserError as error:
            found.problems += error.problems
            return found
        for item, (case, remark) in zip(series, _ids(series, root), strict=True):
            found.problems += _segment_problems(case, item, numbers)
            folder, first = _folder(item), item.segmentations[0].path
            found.add(
                DicomCase(
                    case,
                    folder,
                    first,
                    series=item,
                    numbers=tuple(numbers.items()),
                    remark=remark,
                )
            )
        return found

    def _labels(self, dataset: Dataset) -> LabelMap:
        """An organ for each name of a segment."""
        return _map({name: [name] for name in _names(self._series(dataset))})

    def _chosen_labels(self, dataset: Dataset, labels: Mapping[str, Raw]) -> LabelMap:
        """The map that `dataset.labels` gives, by names of segments."""
        return _map(_parse_names(labels, _names(self._series(dataset))))

    def _numbers(self, dataset: Dataset, series: Sequence[Segmented]) -> dict[str, int]:
        """Name of a segment to its raw label, of those that are an organ or a part of one."""
        names = _names(series)
        organs = (
            {name: [name] for name in names}
            if dataset.labels is None
            else _parse_names(dataset.labels, names)
        )
        return {part: _number(parts) for parts in organs.values() for part in parts}

    def _series(self, dataset: Dataset) -> list[Segmented]:
        """The series of the cases to use."""
        objects, _ = _objects(Path(dataset.root))
        series, _ = belonging(objects)
        if dataset.cases is None:
            return series
        ids = (case for case, _ in _ids(series, Path(dataset.root)))
        return [item for item, case in zip(series, ids, strict=True) if case in dataset.cases]


def _objects(root: Path) -> tuple[list[Object], list[str]]:
    """The DICOM files below a folder, and a problem for each that can't be read."""
    found, problems = [], []
    for path in walk(root) if root.is_dir() else ():
        try:
            if (item := identify(path)) is not None:
                found.append(item)
        except UserError as error:
            problems += error.problems
    return found, problems


def _names(series: Iterable[Segmented]) -> list[str]:
    """Names of the segments, sorted, each once."""
    return sorted(
        {
            name
            for item in series
            for segmentation in item.segmentations
            for _, name in segmentation.segments
            if name
        }
    )


def _number(parts: Sequence[str]) -> int:
    """The raw label of an organ that consists of these segments.

    It follows from their names alone, so that a folder with more segments gives the same.
    """
    text = "\n".join(sorted(parts))
    return 1 + int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % (2**31 - 1)


def _map(organs: Mapping[str, Sequence[str]]) -> LabelMap:
    """A label map of organs that consist of segments."""
    numbers = {organ: (_number(parts),) for organ, parts in organs.items()}
    if len(set(numbers.values())) < len(numbers):
        raise UserError(
            "dataset.labels: two organs' segments have the same hash; give one of the segments "
            "another SegmentLabel."
        )
    return LabelMap(numbers)


def _parse_names(labels: Mapping[str, Raw], known: Sequence[str]) -> dict[str, list[str]]:
    """Organ to names of segments from `dataset.labels`; UserError with everything wrong in it."""
    organs: dict[str, list[str]] = {}
    problems: list[str] = []
    owner: dict[str, str] = {}
    if not labels:
        problems.append("dataset.labels: names no organ; null takes all segments.")
    for organ, raws in raw_labels(labels).items():
        names = [segment_name(str(raw)) for raw in raws]
        if not names:
            problems.append(f"dataset.labels.{organ}: names no segment.")
        for name in names:
            if name not in known:
                problems.append(
                    f"dataset.labels.{organ}: no segment is called {name!r} (SegmentLabel); "
                    f"found {few(known, 20)}."
                )
            if name in owner:
                problems.append(
                    f"dataset.labels.{organ}: segment {name!r} already belongs to {owner[name]}."
                )
            owner[name] = organ
        organs[organ] = names
    if problems:
        raise UserError(problems)
    return organs


def _segment_problems(case: str, item: Segmented, numbers: Mapping[str, int]) -> list[str]:
    """Segments without a name, and names that two files have."""
    problems = []
    owners: dict[str, Path] = {}
    for segmentation in item.segmentations:
        unnamed = [str(number) for number, name in segmentation.segments if not name]
        if unnamed:
            problems.append(
                f"{case}: {segmentation.path}: expected a SegmentLabel for each segment, found "
                f"none for {few(unnamed)}; name them."
            )
        for name in dict.fromkeys(name for _, name in segmentation.segments if name in numbers):
            other = owners.setdefault(name, segmentation.path)
            if other != segmentation.path:
                problems.append(
                    f"{case}: {segmentation.path}: expected each segment in one Segmentation of "
                    f"the series, found {name!r} also in {other.name}; two readers? Keep one."
                )
    return problems


def _folder(item: Segmented) -> Path:
    """The deepest folder that holds all images of a series."""
    first, *others = (image.path.parent for image in item.images)
    folder = first
    for other in others:
        while not other.is_relative_to(folder):
            folder = folder.parent
    return folder


def _ids(series: Sequence[Segmented], root: Path) -> Iterator[tuple[str, str]]:
    """A case id for each series, after its folder as `hsam predict` names it, and a remark.

    The hash of its UID stands in place of names that hold the patient's, and behind those that
    several series share. What tells patients apart then is no hash of anything that names them,
    which could be guessed, but of the first of their series' UIDs.
    """
    folders = [_folder(item) for item in series]
    firsts: dict[str, str] = {}
    for uid, patient in sorted((item.images[0].series, item.images[0].patient) for item in series):
        firsts.setdefault(patient, uid)
    for item, folder in zip(series, folders, strict=True):
        image = item.images[0]
        digest, parts = _short_hash(image.series), folder.relative_to(root).parts
        hidden = f"patient-{_short_hash(firsts[image.patient])}_{digest}"
        if any(names_patient(part, image.path) for part in parts):
            yield hidden, HIDDEN
        elif not parts:
            yield hidden, ""
        elif folders.count(folder) > 1:
            yield f"{plain_name('_'.join(parts))}_{digest}", ""
        else:
            yield plain_name("_".join(parts)), ""


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]

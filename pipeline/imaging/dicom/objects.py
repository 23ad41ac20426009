"""Which image series and Segmentations lie among many DICOM files, and which belong together.

Segmentations say themselves which series they are of: names of files and folders play no part.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import SegmentationStorage

from pipeline.core.errors import UserError
from pipeline.imaging import volumes
from pipeline.imaging.dicom.images import (
    NO_IMAGE_MODALITIES,
    NO_IMAGES,
    is_named_like_dicom,
    looks_like_dicom,
)

# Label Map Segmentation Storage, of the standard's edition 2024d
LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
SEGMENTATIONS = (SegmentationStorage, LABEL_MAP)
TAGS = (
    "SOPClassUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "Rows",
    "PatientID",
    "ReferencedSeriesSequence",
    "SegmentSequence",
    "SegmentationType",
)
READ = [Tag(tag) for tag in TAGS]
IDENTIFIERS = ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber")
SHORTEST = 3  # characters of a part of an identifier that a name can be said to hold


@dataclass(frozen=True)
class Object:
    """What a DICOM file is and what it refers to; nothing in it names a patient.

    Attributes:
        path: the file.
        series, frame_of_reference: UIDs, empty where there are none.
        patient: a hash that files of one patient share, or of one study where no patient is named.
        modality: such as "CT".
        is_image: whether it holds an image of the patient.
        segments: number to name as `segment_name` gives it, of a Segmentation; else empty.
        kind: SegmentationType of a Segmentation: "BINARY", "FRACTIONAL" or "LABELMAP".
        refers_to: UIDs of the series that a Segmentation says it is of.
    """

    path: Path
    series: str
    frame_of_reference: str
    patient: str
    modality: str
    is_image: bool
    segments: tuple[tuple[int, str], ...] = ()
    kind: str = ""
    refers_to: tuple[str, ...] = ()


@dataclass(frozen=True)
class Segmented:
    """An image series and the Segmentations of it.

    Attributes:
        images: files of the series, sorted; at least one.
        segmentations: sorted by path; at least one.
    """

    images: tuple[Object, ...]
    segmentations: tuple[Object, ...]


def segment_name(label: str) -> str:
    """A SegmentLabel by which segments of different files are compared: in lower case, one space
    or underscore for any number of spaces or underscores.
    """
    return " ".join(label.replace("_", " ").split()).casefold()


def identify(path: Path) -> Object | None:
    """What a file is; None: no DICOM.

    Raises:
        UserError: DICOM that can't be read.
    """
    if volumes.suffix(path) is not None:
        return None
    try:
        about = path.stat()
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from None
    return _identified(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=1 << 18)
def _identified(path: Path, size: int, changed_ns: int) -> Object | None:
    """As `identify`; a file of the same size and time is read once in a process."""
    if not looks_like_dicom(path):
        return None
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=READ, force=True)
        kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
        if kind is None and "Rows" not in header:
            if not is_named_like_dicom(path):
                return None
            raise ValueError("found neither an image nor the kind of object that it is")
        return _object(path, header, str(kind))
    except Exception as error:  # a damaged header fails anywhere, as late as a value is looked at
        # the error's own words may hold the patient's
        raise UserError(
            f"{path}: can't be read as DICOM ({type(error).__name__}); get it again."
        ) from None


def _object(path: Path, header: Dataset, kind: str) -> Object:
    modality = str(header.get("Modality", "") or "")
    who = str(header.get("PatientID", "") or "") or str(header.get("StudyInstanceUID", ""))
    found = Object(
        path,
        str(header.get("SeriesInstanceUID", "")),
        str(header.get("FrameOfReferenceUID", "")),
        hashlib.sha256(who.encode()).hexdigest(),
        modality,
        "Rows" in header and kind not in NO_IMAGES and modality not in NO_IMAGE_MODALITIES,
    )
    if kind not in SEGMENTATIONS:
        return found
    segments = tuple(
        (int(item.SegmentNumber), segment_name(str(item.get("SegmentLabel", "") or "")))
        for item in header.get("SegmentSequence") or ()
    )
    refers = (
        str(item.get("SeriesInstanceUID", ""))
        for item in header.get("ReferencedSeriesSequence") or ()
    )
    return Object(
        found.path,
        found.series,
        found.frame_of_reference,
        found.patient,
        found.modality,
        is_image=False,
        # a label map has its background as segment 0
        segments=tuple((number, name) for number, name in segments if number),
        kind=str(header.get("SegmentationType", "")),
        refers_to=tuple(filter(None, refers)),
    )


def is_segmentation(item: Object) -> bool:
    """Whether an object is a Segmentation, which has a type."""
    return bool(item.kind)


def belonging(objects: Iterable[Object]) -> tuple[list[Segmented], list[str]]:
    """The series that Segmentations refer to; other series are left out.

    A Segmentation belongs to the series that it names, or, where that isn't there, to the only
    one with its frame of reference.

    Returns:
        Series with their Segmentations, in the order of the series' files; problems, one sentence
        each.
    """
    series: dict[str, list[Object]] = {}
    segmentations: list[Object] = []
    for item in sorted(objects, key=lambda item: item.path):
        if is_segmentation(item):
            segmentations.append(item)
        elif item.is_image:
            series.setdefault(item.series, []).append(item)
    of: dict[str, list[Object]] = {}
    problems = []
    for item in segmentations:
        found = _referred(item, series)
        if len(found) == 1:
            of.setdefault(found[0], []).append(item)
            continue
        which = f"{len(found)} series that are there" if found else "no series that is there"
        problems.append(
            f"{item.path}: expected a Segmentation of one series, found that it refers to {which} "
            "(ReferencedSeriesSequence, FrameOfReferenceUID); add that series, or remove the "
            "Segmentation."
        )
    return [
        Segmented(tuple(images), tuple(of[uid])) for uid, images in series.items() if uid in of
    ], problems


def _referred(item: Object, series: Mapping[str, list[Object]]) -> list[str]:
    """UIDs of the series that a Segmentation is of, as far as they are there."""
    if named := [uid for uid in dict.fromkeys(item.refers_to) if uid in series]:
        return named
    return [
        uid
        for uid, images in series.items()
        if item.frame_of_reference
        and any(image.frame_of_reference == item.frame_of_reference for image in images)
    ]


def names_patient(text: str, path: Path) -> bool:
    """Whether a text holds the name, number or date of birth in a file's header.

    Files that say of themselves that such things were taken away hold none.
    """
    wanted = [Tag(tag) for tag in (*IDENTIFIERS, "PatientIdentityRemoved")]
    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted, force=True)
    if str(header.get("PatientIdentityRemoved", "")).upper() == "YES":
        return False
    values = (str(header.get(tag, "") or "").casefold() for tag in IDENTIFIERS)
    parts = (part for value in values for part in value.replace("^", " ").replace("=", " ").split())
    return any(len(part) >= SHORTEST and part in text.casefold() for part in parts)

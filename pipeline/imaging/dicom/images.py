"""DICOM files of any kind: recognising them, reading their headers, saying what they are."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID, RTDoseStorage, SegmentationStorage
from pydicom.valuerep import VR

from pipeline.core.errors import UserError
from pipeline.imaging.dicom.frames import PER_FRAME, SHARED, frame_headers, has_frames

ENDINGS = (".dcm", ".ima")
NO_DICOM = "no DICOM"
# private tags of vendors that put the slices of a volume side by side into one image
SIEMENS, SIEMENS_TILES, UNITED_IMAGING_TILES = (0x0019, 0x0010), (0x0019, 0x100A), (0x0065, 0x1051)
TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "Modality",
    "ImageType",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "NumberOfFrames",
    "InstanceNumber",
    "AcquisitionNumber",
    "ImagesInAcquisition",
    "NumberOfSlices",
    "InConcatenationNumber",
    "InConcatenationTotalNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    SHARED,
    PER_FRAME,
    SIEMENS,
    SIEMENS_TILES,
    UNITED_IMAGING_TILES,
)
READ = [Tag(tag) for tag in TAGS]
# how many numbers each of these tags holds, where it is present at all
COUNTS = {
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "PixelSpacing": 2,
    "Rows": 1,
    "Columns": 1,
    "SamplesPerPixel": 1,
    "RescaleSlope": 1,
    "RescaleIntercept": 1,
    "NumberOfFrames": 1,
    "InstanceNumber": 1,
    "InStackPositionNumber": 1,
    "ImagesInAcquisition": 1,
    "NumberOfSlices": 1,
    "InConcatenationTotalNumber": 1,
    "SliceThickness": 1,
    "SpacingBetweenSlices": 1,
}
# objects with pixels that hold no image of the patient; others have no Rows
NO_IMAGES = (SegmentationStorage, RTDoseStorage)
NO_IMAGE_MODALITIES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "DOC")
# largest difference between direction cosines, and share of a pixel's side, within one volume
PARALLEL, SAME_SIDE = 0.01, 1e-3


@dataclass(frozen=True, eq=False)
class Image:
    """One image of a series.

    Attributes:
        path: its file.
        header: the tags TAGS of its header; of a frame as a single-frame image would have them.
        frame: index from 0 in a multi-frame file, None in a single-frame file.
    """

    path: Path
    header: Dataset
    frame: int | None = None

    @property
    def name(self) -> str:
        """For messages: the file's name, and its frame or instance number."""
        if self.frame is not None:
            return f"{self.path.name} (frame {self.frame + 1})"
        number = self.header.get("InstanceNumber")
        return self.path.name if number is None else f"{self.path.name} (instance {number})"

    @property
    def place(self) -> str:
        """For messages: the file's path, and its frame."""
        return f"{self.path}" if self.frame is None else f"{self.path}: frame {self.frame + 1}"

    @property
    def position(self) -> NDArray[np.float64]:
        """(3,): centre of the first pixel in the patient, LPS mm."""
        return np.array(self.header.ImagePositionPatient, float)

    @property
    def axes(self) -> NDArray[np.float64]:
        """(2, 3): unit vectors along a row and along a column of pixels, LPS."""
        return np.reshape(np.array(self.header.ImageOrientationPatient, float), (2, 3))

    @property
    def spacing(self) -> NDArray[np.float64]:
        """(2,): from one row to the next and from one column to the next, mm."""
        return np.array(self.header.PixelSpacing, float)

    def turn(self, other: "Image") -> float:
        """The largest difference between the direction cosines of two images."""
        return float(np.abs(self.axes - other.axes).max())

    def same_pixels(self, other: "Image") -> bool:
        """Whether two images have the same matrix and, but for rounding, the same pixel spacing."""
        matrices = [(image.header.Rows, image.header.Columns) for image in (self, other)]
        return matrices[0] == matrices[1] and np.allclose(self.spacing, other.spacing, SAME_SIDE, 0)

    def same_plane(self, other: "Image") -> bool:
        """Whether two images can be slices of one volume: pixels and orientation are the same."""
        return self.same_pixels(other) and self.turn(other) <= PARALLEL


def look(path: Path) -> tuple[list[Image], str]:
    """What a file holds, with or without DICOM's preamble and whatever its name is.

    Returns:
        Its images: none, one, or one for each frame; and what it is in words, such as
        "Segmentation (SEG)" or NO_DICOM.

    Raises:
        UserError: a link to nothing, or a DICOM file that can't be read.
    """
    if leads_nowhere(path):
        raise UserError(
            f"{path}: expected a file, found a link to one that isn't there; get the data first "
            "(dvc pull, git annex get)."
        )
    start = _start(path)
    if not _looks_like_dicom(path, start):
        return [], NO_DICOM
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=READ, force=True)
        kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
        if kind is None and "Rows" not in header:
            if not _named_like_dicom(path, start):
                return [], NO_DICOM
            raise ValueError("found neither an image nor the kind of object that it is")
        if "Rows" not in header and "Image Storage" in UID(kind or "").name:
            raise ValueError(f"expected an image, found a {_words(header, kind)} without Rows")
        return _images(path, header, kind), _words(header, kind)
    except Exception as error:  # a damaged header fails anywhere, as late as a value is looked at
        raise UserError(f"{path}: can't be read as DICOM ({error}); get it again.") from None


def looks_like_dicom(path: Path) -> bool:
    """Whether a file's name or its first bytes are those of DICOM.

    Raises:
        UserError: it can't be read.
    """
    return _looks_like_dicom(path, _start(path))


def is_named_like_dicom(path: Path) -> bool:
    """Whether a file's name or its preamble says that it is DICOM; raises as `looks_like_dicom`."""
    return _named_like_dicom(path, _start(path))


def leads_nowhere(path: Path) -> bool:
    """Whether a path is a link to what isn't there."""
    return path.is_symlink() and not path.exists()


def _start(path: Path) -> bytes:
    """The first 132 bytes of a file: DICOM's preamble."""
    try:
        with open(path, "rb") as file:
            return file.read(132)
    except OSError as error:
        raise UserError(f"{path}: can't be read ({error.strerror}).") from None


def _looks_like_dicom(path: Path, start: bytes) -> bool:
    return _named_like_dicom(path, start) or _begins_like_dicom(start)


def _named_like_dicom(path: Path, start: bytes) -> bool:
    return path.suffix.lower() in ENDINGS or start[128:] == b"DICM"


def _begins_like_dicom(start: bytes) -> bool:
    """Whether a file without preamble begins with an element of group 2 or 8."""
    if len(start) < 8:
        return False
    for order in "<>":
        group, _, length = struct.unpack(f"{order}HHI", start[:8])
        explicit = start[4:6].decode("latin-1") in VR.__members__
        # before an implicit element's value stands its length, as few bytes as those of a UID
        if group in (0x0002, 0x0008) and (explicit or length < 1024):
            return True
    return False


def _words(header: Dataset, kind: str | None) -> str:
    """The kind of object and its modality, in the standard's words."""
    name = UID(kind or "").name.removesuffix(" Storage") or "unknown kind"
    modality = header.get("Modality")
    return f"{name} ({modality})" if modality else name


def _images(path: Path, header: Dataset, kind: str | None) -> list[Image]:
    """The images of a file, their values checked."""
    if "Rows" not in header or kind in NO_IMAGES or header.get("Modality") in NO_IMAGE_MODALITIES:
        return []
    images = [Image(path, header)]
    if has_frames(header):
        said, found = int(header.get("NumberOfFrames") or 1), len(header.get(PER_FRAME))
        if said != found:
            raise ValueError(f"expected the places of {said} frames, found {found}")
        images = [Image(path, frame, index) for index, frame in enumerate(frame_headers(header))]
    for image in images:
        _check_values(image.header)
    return images


def _check_values(header: Dataset) -> None:
    """Decode every value; ValueError where a tag doesn't hold the numbers that COUNTS says."""
    for element in header:
        count = COUNTS.get(element.keyword)
        if count is None or element.is_empty:
            continue
        numbers = np.atleast_1d(np.array(element.value, float))
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise ValueError(f"{element.keyword}: expected {count} numbers, found {element.value}")

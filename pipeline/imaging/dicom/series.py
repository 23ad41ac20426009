"""DICOM series: which ones a folder holds, and choosing one of them.

Messages name the series' number and description, never anything that identifies a patient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.misc import is_dicom

from pipeline.core.errors import UserError
from pipeline.imaging.dicom.frames import PER_FRAME, SHARED, frame_headers, has_frames

TAGS = [
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
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    SHARED,
    PER_FRAME,
]
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
    "SliceThickness": 1,
    "SpacingBetweenSlices": 1,
}
# modalities of objects that hold no image of the patient
NO_IMAGES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "DOC")


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
    def position(self) -> NDArray[np.float64]:
        """(3,): centre of the first pixel in the patient, LPS mm."""
        return np.array(self.header.ImagePositionPatient, float)

    @property
    def axes(self) -> NDArray[np.float64]:
        """(2, 3): unit vectors along a row and along a column of pixels, LPS."""
        return np.reshape(np.array(self.header.ImageOrientationPatient, float), (2, 3))

    @property
    def plane(self) -> tuple[Any, ...]:
        """Matrix size, pixel spacing and orientation, rounded: equal in all slices of a volume."""
        header = self.header
        spacing = tuple(round(float(side), 4) for side in header.PixelSpacing)
        return (header.Rows, header.Columns, spacing, *self.axes.round(2).ravel().tolist())


@dataclass(frozen=True, eq=False)
class Series:
    """The images of one series, in the order of the files or, once stacked, of the slices.

    Attributes:
        folder: where the files lie.
        images: at least one.
    """

    folder: Path
    images: tuple[Image, ...]

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return str(self.images[0].header.get("SeriesInstanceUID", ""))

    @property
    def number(self) -> str:
        """SeriesNumber, empty where there is none."""
        return str(self.images[0].header.get("SeriesNumber", "") or "")

    @property
    def description(self) -> str:
        """SeriesDescription, empty where there is none."""
        return str(self.images[0].header.get("SeriesDescription", "") or "").strip()

    @property
    def modality(self) -> str:
        """Modality, such as "CT" or "MR"; empty where there is none."""
        return str(self.images[0].header.get("Modality", "") or "")

    def text(self) -> str:
        """One line for a list to choose from: number, description, modality, number of images."""
        words = f"{self.number or 'no number'}: {self.description or 'no description'}"
        return f"{words} ({self.modality or 'unknown modality'}, {len(self.images)} images)"


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files directly in a folder, known by ending or first bytes, sorted by name."""
    files = (path for path in sorted(folder.iterdir()) if path.is_file())
    return [path for path in files if path.suffix.lower() in (".dcm", ".ima") or is_dicom(path)]


def has_images(folder: Path) -> bool:
    """Whether an image lies directly in a folder; a DICOM file that can't be read counts as one."""
    return any(_may_be_image(path) for path in dicom_files(folder))


def find_series(folder: Path) -> list[Series]:
    """The image series directly in a folder, sorted by series number, then description.

    Raises:
        UserError: a DICOM file that can't be read.
    """
    groups: dict[str, list[Image]] = {}
    for path in dicom_files(folder):
        for image in _images(path):
            groups.setdefault(str(image.header.get("SeriesInstanceUID", "")), []).append(image)
    series = [Series(folder, tuple(images)) for images in groups.values()]
    return sorted(series, key=lambda item: (item.number.zfill(8), item.description, item.uid))


def choose(series: Sequence[Series], wanted: str | None, folder: Path) -> Series:
    """The one series with this number, description or UID.

    Args:
        series: all series of the folder, from `find_series`.
        wanted: SeriesNumber, SeriesDescription or SeriesInstanceUID; None takes the only series.
        folder: for messages.

    Raises:
        UserError: no series or several fit; the message lists all of them.
    """
    if not series:
        raise UserError(f"{folder}: expected a DICOM series of images, found none.")
    fits = [s for s in series if wanted in (None, s.number, s.description, s.uid)]
    if len(fits) == 1:
        return fits[0]
    names = [(item.number, item.description) for item in series]
    listed = "; ".join(
        item.text() if names.count(name) == 1 else f"{item.text()}, UID {item.uid}"
        for item, name in zip(series, names, strict=True)
    )
    if wanted is None:
        found = f"found {len(series)} series; choose by number, description or UID with --series"
    else:
        found = f"--series {wanted} fits {len(fits) or 'none'} of {len(series)}"
    raise UserError(f"{folder}: {found}: {listed}.")


def _may_be_image(path: Path) -> bool:
    try:
        return bool(_images(path))
    except UserError:
        return True


def _images(path: Path) -> list[Image]:
    """The images of a file: none, one, or one for each frame."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS, force=True)
        if "Rows" not in header or header.get("Modality") in NO_IMAGES:
            return []
        images = [Image(path, header)]
        if has_frames(header):
            frames = enumerate(frame_headers(header))
            images = [Image(path, frame, index) for index, frame in frames]
        for image in images:
            _check_values(image.header)
        return images
    except Exception as error:  # a damaged header fails anywhere, as late as a value is looked at
        raise UserError(f"{path}: can't be read as DICOM ({error}); get it again.") from None


def _check_values(header: Dataset) -> None:
    """Decode every value; ValueError where a tag doesn't hold the numbers that COUNTS says."""
    for element in header:
        count = COUNTS.get(element.keyword)
        if count is None or element.is_empty:
            continue
        numbers = np.atleast_1d(np.array(element.value, float))
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise ValueError(f"{element.keyword}: expected {count} numbers, found {element.value}")

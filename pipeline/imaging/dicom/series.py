"""DICOM series: which ones a folder holds, and one of them as a volume.

The series' description and number are named in messages; nothing that identifies a patient is.
"""

from collections.abc import Iterable, Sequence
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
from pipeline.imaging.dicom.pixels import PixelReader
from pipeline.imaging.geometry import LPS_TO_RAS, Geometry
from pipeline.imaging.volumes import Volume

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
# numbers that these have where they stand
COUNTS = {
    "ImagePositionPatient": 3,
    "ImageOrientationPatient": 6,
    "PixelSpacing": 2,
    "Rows": 1,
    "Columns": 1,
    "SamplesPerPixel": 1,
    "NumberOfFrames": 1,
    "SliceThickness": 1,
    "SpacingBetweenSlices": 1,
}
NO_IMAGES = ("SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "DOC")
SAME_PLACE_MM = 0.01
TOLERANCE = 0.1  # of the slice distance, or of a pixel, by which slices may lie off a regular grid


@dataclass(frozen=True, eq=False)
class Image:
    """One image of a series.

    Attributes:
        path: its file.
        header: what of its header is used.
        frame: index from 0 in a multi-frame file, None in another.
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
        """Centre of the first pixel, LPS mm."""
        return np.array(self.header.ImagePositionPatient, float)

    @property
    def axes(self) -> NDArray[np.float64]:
        """(2, 3): directions in which columns and rows are counted, LPS."""
        return np.reshape(np.array(self.header.ImageOrientationPatient, float), (2, 3))

    @property
    def plane(self) -> tuple[Any, ...]:
        """What all slices of one volume share."""
        header = self.header
        spacing = tuple(round(float(side), 4) for side in header.PixelSpacing)
        return (header.Rows, header.Columns, spacing, *self.axes.round(2).ravel().tolist())


@dataclass(frozen=True, eq=False)
class Series:
    """The images of one series in a folder."""

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
        """Such as CT or MR."""
        return str(self.images[0].header.get("Modality", "") or "")

    def text(self) -> str:
        """The series in words, for a choice."""
        words = f"{self.number or 'no number'}: {self.description or 'no description'}"
        return f"{words} ({self.modality or 'unknown modality'}, {len(self.images)} images)"


def dicom_files(folder: Path) -> list[Path]:
    """The DICOM files that lie directly in a folder, sorted by name."""
    files = (path for path in sorted(folder.iterdir()) if path.is_file())
    return [path for path in files if path.suffix.lower() in (".dcm", ".ima") or is_dicom(path)]


def has_images(folder: Path) -> bool:
    """Whether a folder itself holds an image; one that can't be read counts."""
    return any(_may_be_image(path) for path in dicom_files(folder))


def find_series(folder: Path) -> list[Series]:
    """The image series that lie directly in a folder, by series number and description.

    Raises:
        UserError: a file that can't be read.
    """
    groups: dict[str, list[Image]] = {}
    for path in dicom_files(folder):
        for image in _images(path):
            groups.setdefault(str(image.header.get("SeriesInstanceUID", "")), []).append(image)
    series = [Series(folder, tuple(images)) for images in groups.values()]
    return sorted(series, key=lambda item: (item.number.zfill(8), item.description, item.uid))


def choose(series: Sequence[Series], wanted: str | None, folder: Path) -> Series:
    """The series with this number, description or UID; with None the only one.

    Raises:
        UserError: none or several; they are listed.
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


def read_series(series: Series) -> tuple[Volume, Series, list[str]]:
    """A series as a volume, rescaled (CT: HU).

    Returns:
        The volume, its axes being (column, row, slice); the series with the images that it is made
        of, in the order of its slices; warnings, one sentence each.

    Raises:
        UserError: RGB images, frames without a position, slices that are missing, lie twice with
            different content or at uneven distances, several orientations or sizes, no geometry,
            or damaged voxels.
    """
    _check_headers(series)
    images, warnings = _without_localizers(series)
    images = _sorted(images)
    with PixelReader() as pixels:
        images, doubled = _without_twins(series, images, pixels)
        step, tilted = _step(series, images)
        array = _voxels(images, pixels)
    spacing = [float(side) for side in images[0].header.PixelSpacing]
    affine = np.eye(4)
    # along a row the column index grows
    affine[:3, 0] = images[0].axes[0] * spacing[1]
    affine[:3, 1] = images[0].axes[1] * spacing[0]
    affine[:3, 2], affine[:3, 3] = step, images[0].position
    volume = Volume(array, Geometry(array.shape, LPS_TO_RAS @ affine))
    return volume, Series(series.folder, tuple(images)), warnings + doubled + tilted


def _may_be_image(path: Path) -> bool:
    try:
        return bool(_images(path))
    except UserError:
        return True


def _images(path: Path) -> list[Image]:
    """The images of a file: one, none, or its frames."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS, force=True)
        if "Rows" not in header or header.get("Modality") in NO_IMAGES:
            return []
        images = [Image(path, header)]
        if has_frames(header):
            frames = enumerate(frame_headers(header))
            images = [Image(path, own, index) for index, own in frames]
        for image in images:
            _check_values(image.header)
        return images
    except Exception as error:  # a damaged header fails anywhere, as late as a value is looked at
        raise UserError(f"{path}: can't be read as DICOM ({error}); get it again.") from None


def _check_values(header: Dataset) -> None:
    """Raise an error unless every value can be decoded, and numbers are as many as they should."""
    for element in header:
        count = COUNTS.get(element.keyword)
        if count is None or element.is_empty:
            continue
        numbers = np.atleast_1d(np.array(element.value, float))
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise ValueError(f"{element.keyword}: expected {count} numbers, found {element.value}")


def _check_headers(series: Series) -> None:
    problems = []
    for image in series.images:
        header = image.header
        frames, samples = header.get("NumberOfFrames"), header.get("SamplesPerPixel", 1)
        if frames is not None and int(frames) > 1:
            problems.append(
                f"{image.path}: expected frames that say where they lie, found {frames} without "
                "functional groups: a film or screenshots? Convert the series to NIfTI."
            )
        elif int(samples) != 1:
            problems.append(f"{image.path}: expected one value a pixel, found {samples} (RGB).")
        else:
            needed = ("Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
            if lacking := [tag for tag in needed if not header.get(tag)]:
                problems.append(
                    f"{_place(image)}: expected a slice of a volume, found no "
                    f"{' or '.join(lacking)}: "
                    "a screenshot or scanned document?"
                )
    if problems:
        raise UserError(problems)


def _without_localizers(series: Series) -> tuple[list[Image], list[str]]:
    """The images of the one volume, and what was left out of the series."""
    kept, dropped = [], []
    for image in series.images:
        kind = [str(word).upper() for word in image.header.get("ImageType") or []]
        (dropped if "LOCALIZER" in kind or "SCOUT" in kind else kept).append(image)
    planes: dict[tuple[Any, ...], list[Image]] = {}
    for image in kept:
        planes.setdefault(image.plane, []).append(image)
    if not planes:
        raise UserError(f"{series.folder}: the series has only localizers, no volume.")
    largest = max(planes.values(), key=len)
    odd = [image for image in kept if not any(image is other for other in largest)]
    # a localizer that isn't marked as one: a few images that lie across the many
    if len(odd) > max(3, len(largest) // 10) or len(odd) >= len(largest):
        raise UserError(
            f"{series.folder}: expected slices of one size and orientation, found {len(planes)} "
            f"kinds of {', '.join(str(len(group)) for group in planes.values())} images; keep the "
            "images of one volume."
        )
    dropped += odd
    if not dropped:
        return list(largest), []
    names = ", ".join(image.name for image in dropped)
    return list(largest), [f"left out as localizers or of another orientation: {names}."]


def _sorted(images: Iterable[Image]) -> list[Image]:
    """In the direction that makes columns, rows and slices a right-handed system."""
    return sorted(images, key=lambda image: (_height(image), image.path.name))


def _normal(image: Image) -> NDArray[np.float64]:
    return np.cross(*image.axes)


def _height(image: Image) -> float:
    return float(_normal(image) @ image.position)


def _without_twins(
    series: Series, images: list[Image], pixels: PixelReader
) -> tuple[list[Image], list[str]]:
    """Each place once: a slice that is there twice with the same content is dropped."""
    kept, twins, others = [images[0]], [], []
    for image in images[1:]:
        if np.abs(image.position - kept[-1].position).max() >= SAME_PLACE_MM:
            kept.append(image)
        elif np.array_equal(_read(pixels, image), _read(pixels, kept[-1])):
            twins.append(image.name)
        else:
            others.append(f"{kept[-1].name} and {image.name} at {_height(image):.2f} mm")
    if others:
        raise UserError(
            f"{series.folder}: expected one slice at each place, found different ones: "
            f"{_some(others)}; keep one acquisition (phase, echo) of the series."
        )
    return kept, [f"left out, the same slice twice: {_some(twins)}."] if twins else []


def _step(series: Series, images: list[Image]) -> tuple[NDArray[np.float64], list[str]]:
    """From one slice to the next, LPS mm, and a warning where the stack is sheared."""
    if len(images) == 1:
        return _only_step(images[0])
    heights = np.array([_height(image) for image in images])
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    missing = [
        f"{round(gap / usual) - 1} between {low.name} and {high.name}"
        for gap, low, high in zip(gaps, images, images[1:], strict=False)
        if gap > 1.5 * usual
    ]
    if missing:
        raise UserError(
            f"{series.folder}: slices are missing: {_some(missing)}, where slices lie "
            f"{usual:.3g} mm apart; get the whole series."
        )
    step = (images[-1].position - images[0].position) / (len(images) - 1)
    regular = images[0].position + np.arange(len(images))[:, None] * step
    off = np.abs(np.array([image.position for image in images]) - regular).max(axis=1)
    if off.max() > TOLERANCE * usual:
        raise UserError(
            f"{series.folder}: slices lie at uneven distances, {gaps.min():.3g} to "
            f"{gaps.max():.3g} mm ({images[int(off.argmax())].name} is {off.max():.3g} mm off a "
            "regular grid); resample the series to even slices first."
        )
    normal = _normal(images[0])
    across = step - (step @ normal) * normal
    shift = float(np.linalg.norm(across))
    pixel = min(float(side) for side in images[0].header.PixelSpacing)
    if shift * (len(images) - 1) <= TOLERANCE * pixel:
        return step, []
    angle = np.degrees(np.arctan2(shift, abs(float(step @ normal))))
    return step, [
        f"the gantry was tilted by {angle:.1f} degrees: slices were predicted as acquired, and "
        "the label map has the same sheared grid."
    ]


def _only_step(image: Image) -> tuple[NDArray[np.float64], list[str]]:
    header = image.header
    given = header.get("SpacingBetweenSlices") or header.get("SliceThickness")
    thickness = float(given) if given else 1.0
    where = "its header" if given else "no header, assumed"
    return _normal(image) * thickness, [
        f"the series is a single slice; its thickness is {thickness:g} mm (from {where})."
    ]


def _voxels(images: Sequence[Image], reader: PixelReader) -> NDArray[Any]:
    """(column, row, slice), each slice rescaled by its own slope and intercept."""
    first = _read(reader, images[0])
    stack = np.empty((len(images), *first.shape), first.dtype)
    for index, image in enumerate(images):
        pixels = _read(reader, image)
        if pixels.shape != first.shape:
            raise UserError(
                f"{_place(image)}: expected {first.shape[0]} x {first.shape[1]} pixels, found "
                f"{' x '.join(map(str, pixels.shape))}; damaged?"
            )
        if (wider := np.result_type(stack, pixels)) != stack.dtype:
            stack = stack.astype(wider)
        stack[index] = pixels
    return stack.transpose(2, 1, 0)


def _read(reader: PixelReader, image: Image) -> NDArray[Any]:
    return reader.read(image.path, image.header, image.frame)


def _place(image: Image) -> str:
    """The image's file and frame, for messages."""
    return f"{image.path}" if image.frame is None else f"{image.path}: frame {image.frame + 1}"


def _some(items: Sequence[str], number: int = 5) -> str:
    more = f" and {len(items) - number} more" if len(items) > number else ""
    return "; ".join(items[:number]) + more

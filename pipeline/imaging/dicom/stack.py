"""The slices of a DICOM series, checked and stacked into a volume."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.imaging.dicom.images import Image
from pipeline.imaging.dicom.pixels import PixelReader, is_inverted
from pipeline.imaging.dicom.selection import missing_by_headers, slices
from pipeline.imaging.dicom.series import Series, some
from pipeline.imaging.geometry import LPS_TO_RAS, Geometry
from pipeline.imaging.volumes import Volume

SAME_PLACE_MM = 0.01  # slices closer than this lie at one place
# how far slices may lie off a regular grid, as a share of their distance and of a pixel's side
TOLERANCE = 0.1


def read_series(series: Series) -> tuple[Volume, Series, list[str]]:
    """Stack a series into a volume.

    Localizers and slices that are stored twice are left out; slices are sorted along the normal
    of their plane.

    Returns:
        The volume (column, row, slice) with rescaled voxels (CT: HU); the series reduced to the
        images in it, in the order of its slices; warnings, one sentence each.

    Raises:
        UserError: RGB images, slices without a position, missing slices, different slices at one
            place, uneven distances, several orientations or sizes, or damaged voxels.
    """
    images, warnings = slices(series)
    images = _sorted(images)
    with PixelReader() as pixels:
        images, of_doubles = _without_doubles(series, images, pixels)
        step, of_step = _step(series, images)
        array = _voxels(images, pixels)
    spacing = [float(side) for side in images[0].header.PixelSpacing]
    affine = np.eye(4)
    # axes[0] runs along a row, where the column index grows; its spacing is the second number
    affine[:3, 0] = images[0].axes[0] * spacing[1]
    affine[:3, 1] = images[0].axes[1] * spacing[0]
    affine[:3, 2], affine[:3, 3] = step, images[0].position
    volume = Volume(array, Geometry(array.shape, LPS_TO_RAS @ affine))
    found = (*warnings, *of_doubles, *of_step, *missing_by_headers(series, images))
    used = Series(series.folder, tuple(images), (*series.warnings, *found, *_of_inversion(images)))
    return volume, used, list(used.warnings)


def _sorted(images: Iterable[Image]) -> list[Image]:
    """Along the normal, so that column, row and slice axes form a right-handed system."""
    return sorted(images, key=lambda image: (_height(image), image.path.name))


def _normal(image: Image) -> NDArray[np.float64]:
    """(3,): unit vector across the image's plane, LPS."""
    return np.cross(*image.axes)


def _height(image: Image) -> float:
    """Position along the normal, mm."""
    return float(_normal(image) @ image.position)


def _without_doubles(
    series: Series, images: list[Image], pixels: PixelReader
) -> tuple[list[Image], list[str]]:
    """The images without copies of a slice at the same place, and a warning that names those.

    Raises:
        UserError: slices at one place whose voxels differ.
    """
    kept, doubles, different = [images[0]], [], []
    for image in images[1:]:
        if np.abs(image.position - kept[-1].position).max() >= SAME_PLACE_MM:
            kept.append(image)
        elif np.array_equal(_read(pixels, image), _read(pixels, kept[-1])):
            doubles.append(image.name)
        else:
            different.append(f"{kept[-1].name} and {image.name} at {_height(image):.2f} mm")
    if different:
        raise UserError(
            f"{series.folder}: expected one slice at each place, found different ones: "
            f"{some(different)}; keep one acquisition (phase, echo) of the series."
        )
    return kept, [f"left out, the same slice twice: {some(doubles)}."] if doubles else []


def _step(series: Series, images: list[Image]) -> tuple[NDArray[np.float64], list[str]]:
    """(3,): the vector from one slice to the next, LPS mm, and a warning where it is tilted.

    Raises:
        UserError: missing slices or uneven distances.
    """
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
            f"{series.folder}: slices are missing: {some(missing)}, where slices lie "
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
        f"the gantry was tilted by {angle:.1f} degrees: slices are taken as acquired, and "
        "label maps have the same sheared grid."
    ]


def _only_step(image: Image) -> tuple[NDArray[np.float64], list[str]]:
    """The step of a single slice: its thickness along the normal, 1 mm where none is given."""
    header = image.header
    given = header.get("SpacingBetweenSlices") or header.get("SliceThickness")
    thickness = float(given) if given else 1.0
    where = "its header" if given else "no header, assumed"
    return _normal(image) * thickness, [
        f"the series is a single slice; its thickness is {thickness:g} mm (from {where})."
    ]


def _of_inversion(images: Sequence[Image]) -> list[str]:
    """A warning where pixels were turned round."""
    inverted = [image for image in images if is_inverted(image.header)]
    if not inverted:
        return []
    modality = inverted[0].header.get("Modality") or "unknown"
    which = "all" if len(inverted) == len(images) else f"{len(inverted)} of {len(images)}"
    return [
        f"{which} slices are to be shown with low values bright (MONOCHROME1, modality "
        f"{modality}): their voxels were inverted, highest stored value for lowest."
    ]


def _voxels(images: Sequence[Image], reader: PixelReader) -> NDArray[Any]:
    """(column, row, slice), each slice rescaled by its own slope and intercept.

    The type is the smallest that holds the values of all slices.
    """
    first = _read(reader, images[0])
    stack = np.empty((len(images), *first.shape), first.dtype)
    for index, image in enumerate(images):
        pixels = _read(reader, image)
        if pixels.shape != first.shape:
            raise UserError(
                f"{image.place}: expected {first.shape[0]} x {first.shape[1]} pixels, found "
                f"{' x '.join(map(str, pixels.shape))}; damaged?"
            )
        if (wider := np.result_type(stack, pixels)) != stack.dtype:
            stack = stack.astype(wider)
        stack[index] = pixels
    return stack.transpose(2, 1, 0)


def _read(reader: PixelReader, image: Image) -> NDArray[Any]:
    return reader.read(image.path, image.header, image.frame)

"""Reading DICOM Segmentations as a label volume on the grid of the images that they are of.

Every frame says where it lies, so that frames of any order, of a part of the slices or of another
whole-axis orientation find their voxels. Source: DICOM PS3.3, A.51 and C.8.20.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import iter_pixels

from pipeline.core.errors import UserError
from pipeline.imaging.dicom.frames import frame_headers, has_frames
from pipeline.imaging.dicom.objects import Object
from pipeline.imaging.geometry import LPS_TO_RAS, Geometry

# how far a frame may lie off the images' voxels, as a share of a voxel's side
OFF_GRID = 0.1
NOT_USED = 0


@dataclass(frozen=True)
class Frame:
    """A frame of a Segmentation.

    Attributes:
        header: as a single-frame image would have it.
        segment: number of the segment that 1 stands for; None: pixels are numbers of segments.
        pixels: (rows, columns).
    """

    header: Dataset
    segment: int | None
    pixels: NDArray[np.integer]


def read_labels(
    segmentations: Sequence[Object], grid: Geometry, numbers: Mapping[str, int]
) -> NDArray[np.int32]:
    """The label volume that Segmentations of one series give together.

    Args:
        segmentations: of the series.
        grid: of the series' volume.
        numbers: segment's name to its label; segments without one are left out, and may overlap
            others.

    Returns:
        (x, y, z) of the grid, 0 where no segment is.

    Raises:
        UserError: a file that can't be read, is of probabilities, lies on another grid or out of
            the volume, or segments of unlike labels that overlap.
    """
    labels = np.zeros(grid.shape, np.int32)
    names = {label: name for name, label in numbers.items()}
    overlaps: dict[tuple[str, str], int] = {}
    for item in segmentations:
        if item.kind == "FRACTIONAL":
            raise UserError(
                f"{item.path}: expected a Segmentation of type BINARY or LABELMAP, found "
                "FRACTIONAL, whose pixels are probabilities; write it with a threshold."
            )
        # number of a segment to its label
        table = {number: numbers.get(name, NOT_USED) for number, name in item.segments}
        for frame in _frames(item.path):
            for label, inside in _parts(frame, table):
                x, y, z = _voxels(item.path, frame.header, inside, grid)
                there = labels[x, y, z]
                for other in np.unique(there[(there != NOT_USED) & (there != label)]):
                    pair = (names[int(other)], names[label])
                    overlaps[pair] = overlaps.get(pair, 0) + int((there == other).sum())
                labels[x, y, z] = label
    if overlaps:
        listed = "; ".join(f"{a} and {b} in {n:,} voxels" for (a, b), n in overlaps.items())
        folder = segmentations[0].path.parent
        raise UserError(
            f"{folder}: expected segments that don't overlap, found {listed}; H-SAM gives each "
            "voxel one organ. Leave one of them out of dataset.labels, or give both to one organ."
        )
    return labels


def _frames(path: Path) -> Iterator[Frame]:
    """The frames of a Segmentation, one after the other.

    Raises:
        UserError: it can't be read, or its frames don't say where they lie.
    """
    try:
        file = pydicom.dcmread(path, force=True)
        if not has_frames(file):
            raise UserError(f"{path}: expected frames that say where they lie, found none.")
        # a file of one frame may leave their number out
        for header, pixels in zip(frame_headers(file), iter_pixels(file), strict=True):
            number = header.get("ReferencedSegmentNumber")
            yield Frame(header, None if number is None else int(number), pixels)
    except UserError:
        raise
    except Exception:  # decoders and pydicom raise errors of many types
        raise UserError(
            f"{path}: its frames can't be read, they are damaged or truncated; get it again."
        ) from None


def _parts(frame: Frame, table: Mapping[int, int]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """The labels in a frame, each with rows and columns of its pixels, (2, n)."""
    numbers = np.unique(frame.pixels) if frame.segment is None else [frame.segment]
    for number in numbers:
        label = table.get(int(number), NOT_USED)
        if label == NOT_USED:
            continue
        shown = frame.pixels == number if frame.segment is None else frame.pixels > 0
        inside = np.array(np.nonzero(shown))
        if inside.size:
            yield label, inside


def _voxels(
    path: Path, header: Dataset, pixels: NDArray[np.intp], grid: Geometry
) -> NDArray[np.intp]:
    """(3, n): the voxels of a grid at which a frame's pixels (2, n) lie.

    Raises:
        UserError: the frame lies between the grid's voxels, or pixels lie out of the grid.
    """
    needed = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    if lacking := [tag for tag in needed if not header.get(tag)]:
        raise UserError(
            f"{path}: expected frames that say where they lie, found no {' or '.join(lacking)}."
        )
    cosines = np.reshape(np.array(header.ImageOrientationPatient, float), (2, 3))
    row_mm, column_mm = (float(side) for side in header.PixelSpacing)
    # one row on is a step along a column of pixels
    steps = np.column_stack((cosines[1] * row_mm, cosines[0] * column_mm, np.zeros(3)))
    frame = np.eye(4)
    frame[:3, :3] = steps
    frame[:3, 3] = np.array(header.ImagePositionPatient, float)
    to_grid = np.linalg.inv(grid.affine) @ LPS_TO_RAS @ frame
    exact = to_grid[:3, :2] @ pixels + to_grid[:3, 3:]
    voxels = np.rint(exact).astype(np.intp)
    whole = np.abs(np.linalg.norm(np.rint(to_grid[:3, :2]), axis=0) - 1).max() < 0.5
    if not whole or (off := float(np.abs(exact - voxels).max())) > OFF_GRID:
        how = f"off by {off:.2g} voxels" if whole else "of other voxel sides or directions"
        raise UserError(
            f"{path}: expected the grid of the images that it refers to, found frames {how}; "
            "resample the Segmentation to that series."
        )
    low, high = voxels.min(axis=1), voxels.max(axis=1)
    if (low < 0).any() or (high >= grid.shape).any():
        raise UserError(
            f"{path}: expected segments within the volume of {' x '.join(map(str, grid.shape))} "
            f"voxels, found some at {' '.join(map(str, low))} to {' '.join(map(str, high))}; is "
            "the series whole?"
        )
    return voxels

"""Where voxels lie in the patient, and how volumes become slices.

Source order is (x, y, z) as the file stores it. Slices are (slice, row, column) along the axes of a
run, three letters for the directions in which the three grow: R or L, A or P, S or I, as in
nibabel's axis codes. The canonical ones are SPL: slices go from the feet to the head, rows from
front to back, columns from the patient's right to the left. Axes are permuted and flipped to the
nearest such order; nothing here interpolates: `resample_labels` takes the nearest label, within
slices, and images are resampled by `pipeline.imaging.resize`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from nibabel import orientations
from numpy.typing import NDArray

from pipeline.core.params.blocks import AXES_RULE, is_axes

CANONICAL = "SPL"  # axes of slices where a run doesn't say otherwise
# direction to where an axis that grows in it begins
BEGINS = {"S": "feet", "I": "head", "P": "front", "A": "back", "L": "right", "R": "left"}
# direction in which slices are stacked to their plane
PLANES = (
    dict.fromkeys("SI", "axial") | dict.fromkeys("AP", "coronal") | dict.fromkeys("LR", "sagittal")
)
# DICOM's and ITK's coordinates to those of NIfTI, and back
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where a volume's voxels lie in the patient.

    Attributes:
        shape: voxels along x, y, z of the source.
        affine: (4, 4) float64, voxel index (x, y, z, 1) to RAS+ millimetres.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel sides along x, y, z in mm."""
        x, y, z = (float(side) for side in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    @property
    def orientation(self) -> str:
        """Directions in which x, y and z grow, to the nearest axis: "RAS", "LPS", "PIR", ..."""
        return "".join(orientations.aff2axcodes(self.affine))

    def sliced_shape(self, axes: str) -> tuple[int, int, int]:
        """(slices, rows, columns) of the volume along a run's axes."""
        slices, rows, columns = (self.shape[axis] for axis in _source_axes(self.affine, axes))
        return slices, rows, columns

    def sliced_spacing(self, axes: str) -> tuple[float, float, float]:
        """Voxel sides along slice, row and column in mm."""
        slices, rows, columns = (self.spacing[axis] for axis in _source_axes(self.affine, axes))
        return slices, rows, columns


def to_slices(array: NDArray[Any], geometry: Geometry, axes: str) -> NDArray[Any]:
    """(x, y, z) in source order -> (slice, row, column), contiguous; values are unchanged.

    Channels (x, y, z, C) become (slice, C, row, column).
    """
    return np.ascontiguousarray(slices_view(array, geometry, axes))


def slices_view(array: NDArray[Any], geometry: Geometry, axes: str) -> NDArray[Any]:
    """(x, y, z) in source order -> (slice, row, column), a view of the same memory.

    Channels (x, y, z, C) become (slice, C, row, column).
    """
    view = orientations.apply_orientation(array, _to_slices(geometry.affine, axes))
    return view if view.ndim == 3 else np.moveaxis(view, -1, 1)


def from_slices(array: NDArray[Any], geometry: Geometry, axes: str) -> NDArray[Any]:
    """(slice, row, column) -> (x, y, z) in source order: the exact inverse of `to_slices`.

    Raises:
        ValueError: the array's shape isn't `geometry.sliced_shape(axes)`.
    """
    if array.shape != geometry.sliced_shape(axes):
        raise ValueError(f"expected shape {geometry.sliced_shape(axes)}, got {array.shape}")
    back = orientations.ornt_transform(
        orientations.axcodes2ornt(axes), orientations.io_orientation(geometry.affine)
    )
    return np.ascontiguousarray(orientations.apply_orientation(array, back))


def source_slice(geometry: Geometry, axes: str, index: int) -> int:
    """Where the slice `index` lies along the source axis that holds the slices."""
    axis = _source_axes(geometry.affine, axes)[0]
    forwards = _to_slices(geometry.affine, axes)[axis, 1] > 0
    return index if forwards else geometry.shape[axis] - 1 - index


def source_voxel(
    geometry: Geometry, axes: str, place: Sequence[int], plane: Sequence[int]
) -> tuple[int, int, int]:
    """The voxel (x, y, z) of the source that holds the middle of a slice's pixel.

    Args:
        geometry: of the source.
        axes: along which it was sliced.
        place: slice, row and column.
        plane: rows and columns of the slices, resampled in plane or not.
    """
    shape = geometry.sliced_shape(axes)
    sizes = (shape[0], *plane)
    voxel = [0, 0, 0]
    for index, new, old, axis in zip(
        place, sizes, shape, _source_axes(geometry.affine, axes), strict=True
    ):
        on_grid = int((index + 0.5) * old / new)
        forwards = _to_slices(geometry.affine, axes)[axis, 1] > 0
        voxel[axis] = on_grid if forwards else old - 1 - on_grid
    return voxel[0], voxel[1], voxel[2]


def preparation(
    axes: str, spacing_mm: float | None, channels: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """How volumes become slices, as manifests and models record it: axes, in-plane spacing.

    Args:
        axes: of the slices.
        spacing_mm: in plane; None: as acquired.
        channels: names of those that are used to their numbers in the data set; None or empty: it
            has one.
    """
    found: dict[str, Any] = {"axes": axes, "spacing_mm": spacing_mm}
    named = [{"name": name, "number": number} for name, number in (channels or {}).items()]
    return found | {"channels": named} if named else found


def recorded_preparation(record: Mapping[str, Any] | None) -> dict[str, Any]:
    """A recorded preparation, whole: canonical axes and no resampling where it doesn't say.

    Raises:
        ValueError: axes or channels that are none.
    """
    found = preparation(CANONICAL, None) | dict(record or {})
    if not is_axes(found["axes"]):
        raise ValueError(f"axes: {AXES_RULE}, got {found['axes']!r}")
    for channel in found.get("channels", []):
        if not isinstance(channel, dict) or not {"name", "number"} <= channel.keys():
            raise ValueError(f"channels: expected a name and a number of each, got {channel!r}")
    return found


def resampled_size(geometry: Geometry, axes: str, spacing_mm: float | None) -> tuple[int, int]:
    """Rows and columns of the slices after resampling in plane.

    Args:
        geometry: of the source.
        axes: of the slices.
        spacing_mm: side of a pixel afterwards; None: as acquired.
    """
    plane = geometry.sliced_shape(axes)[1:]
    if spacing_mm is None:
        return plane
    sides = zip(plane, geometry.sliced_spacing(axes)[1:], strict=True)
    rows, columns = (max(1, round(side * mm / spacing_mm)) for side, mm in sides)
    return rows, columns


def resample_labels(labels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """(slices, rows, columns) -> (slices, *size), the label at the nearest pixel centre.

    The field of view stays, as for `resize.resample_images`.
    """
    for axis, new in zip((1, 2), size, strict=True):
        old = labels.shape[axis]
        if new != old:
            nearest = np.floor((np.arange(new) + 0.5) * old / new).astype(np.intp)
            labels = labels.take(nearest, axis)
    return labels


def restore_labels(labels: NDArray[Any], geometry: Geometry, axes: str) -> NDArray[Any]:
    """Labels (slice, row, column), resampled in plane or not -> (x, y, z) on the source grid."""
    resampled = resample_labels(labels, geometry.sliced_shape(axes)[1:])
    return from_slices(resampled, geometry, axes)


def _to_slices(affine: NDArray[np.float64], axes: str) -> NDArray[Any]:
    """(3, 2): sliced axis and direction (1 or -1) of each source axis, as nibabel has them."""
    return orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(axes)
    )


def _source_axes(affine: NDArray[np.float64], axes: str) -> list[int]:
    """The source axes that become slice, row and column."""
    return [int(axis) for axis in np.argsort(_to_slices(affine, axes)[:, 0])]

"""Volumes on disk and in memory: one type for every format, and one canonical axis order.

Source order is (x, y, z) as the file stores it. Canonical order is (slice, row, column): slices
go from the feet to the head, rows from front to back, columns from the patient's right to the
left (SPL), so that a slice shown as a picture is the radiological display: patient's right on the
left. Volumes are turned by whole axes to the nearest such order, never resampled.
"""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import nibabel as nib
import numpy as np
import SimpleITK as sitk
from nibabel import orientations
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.files import atomic_path

NIFTI = (".nii.gz", ".nii")
HDF5 = (".h5", ".hdf5")
ITK = (".nrrd", ".mhd", ".mha")
SUFFIXES = NIFTI + HDF5 + ITK
# HDF5 volumes of the field store no geometry; this is that of the left-atrium challenge.
HDF5_SPACING_MM = 0.625
CANONICAL = ("S", "P", "L")
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

sitk.ProcessObject.SetGlobalWarningDisplay(False)


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
        return tuple(float(side) for side in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def orientation(self) -> str:
        """Directions in which x, y and z grow, to the nearest axis: "RAS", "LPS", "PIR", ..."""
        return "".join(orientations.aff2axcodes(self.affine))

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns) of the volume in canonical order."""
        return tuple(self.shape[axis] for axis in _source_axes(self.affine))

    @property
    def canonical_spacing(self) -> tuple[float, float, float]:
        """Voxel sides along slice, row and column in mm."""
        return tuple(self.spacing[axis] for axis in _source_axes(self.affine))


@dataclass(frozen=True, eq=False)
class Volume:
    """An array in source axes (x, y, z) and its geometry."""

    array: NDArray[Any]
    geometry: Geometry

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4), voxel index to RAS+ mm."""
        return self.geometry.affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel sides along x, y, z in mm."""
        return self.geometry.spacing


def suffix(path: Path) -> str | None:
    """The known file ending of `path`, None for a format that can't be read."""
    name = Path(path).name.lower()
    return next((ending for ending in SUFFIXES if name.endswith(ending)), None)


def read(path: Path, key: str | None = None) -> Volume:
    """A volume from NIfTI, HDF5, NRRD or MetaImage, with the values as the file means them.

    Args:
        path: the file.
        key: name of the HDF5 data set; unused for other formats.

    Raises:
        UserError: missing, unreadable, truncated, of an unknown format, not three-dimensional,
            without voxels, with several values a voxel, or with a geometry that is no geometry.
    """
    path = Path(path)
    ending = suffix(path)
    if ending is None:
        raise UserError(f"{path}: unknown format; expected one of {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file.")
    if ending in NIFTI:
        array, affine = _read_nifti(path)
    elif ending in HDF5:
        array, affine = _read_hdf5(path, key)
    else:
        array, affine = _read_itk(path)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    array = array.view(np.uint8) if array.dtype == bool else array
    _check_array(path, array)
    _check_affine(path, affine)
    return Volume(array, Geometry(array.shape, affine))


def to_canonical(array: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """(x, y, z) of the source -> (slice, row, column); values unchanged, memory contiguous."""
    return np.ascontiguousarray(canonical_view(array, geometry))


def canonical_view(array: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """(x, y, z) of the source -> (slice, row, column), a view of the same memory."""
    return orientations.apply_orientation(array, _to_canonical(geometry.affine))


def source_slice(geometry: Geometry, index: int) -> int:
    """Index of a canonical slice along the source's own slice axis."""
    axis = _source_axes(geometry.affine)[0]
    forwards = _to_canonical(geometry.affine)[axis, 1] > 0
    return index if forwards else geometry.shape[axis] - 1 - index


def from_canonical(array: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """(slice, row, column) -> (x, y, z) of the source: the exact inverse of `to_canonical`.

    Raises:
        ValueError: the array's shape isn't the geometry's in canonical order.
    """
    if array.shape != geometry.canonical_shape:
        raise ValueError(f"expected shape {geometry.canonical_shape}, got {array.shape}")
    back = orientations.ornt_transform(
        orientations.axcodes2ornt(CANONICAL), orientations.io_orientation(geometry.affine)
    )
    return np.ascontiguousarray(orientations.apply_orientation(array, back))


def preparation(spacing_mm: float | None) -> dict[str, Any]:
    """How volumes become slices, as manifests and models record it."""
    return {"axes": "".join(CANONICAL), "spacing_mm": spacing_mm}


def resampled_size(geometry: Geometry, spacing_mm: float | None) -> tuple[int, int]:
    """Rows and columns of the canonical slices at an in-plane spacing; None: as they are."""
    plane = geometry.canonical_shape[1:]
    if spacing_mm is None:
        return plane
    sides = zip(plane, geometry.canonical_spacing[1:], strict=True)
    return tuple(max(1, round(side * mm / spacing_mm)) for side, mm in sides)


def resample_labels(labels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """(slices, rows, columns) -> (slices, *size): the label at the nearest voxel centre.

    The field of view stays: the outer edges of the first and last voxel are kept.
    """
    for axis, new in zip((1, 2), size, strict=True):
        old = labels.shape[axis]
        if new != old:
            nearest = np.floor((np.arange(new) + 0.5) * old / new).astype(np.intp)
            labels = labels.take(nearest, axis)
    return labels


def resample_images(images: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """(slices, rows, columns) -> (slices, *size) float32, linear, same field of view."""
    images = images.astype(np.float32, copy=False)
    for axis, new in zip((1, 2), size, strict=True):
        old = images.shape[axis]
        if new != old:
            place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
            low = np.minimum(place.astype(np.intp), max(old - 2, 0))
            high = np.minimum(low + 1, old - 1)
            shape = (1, new, 1) if axis == 1 else (1, 1, new)
            weight = (place - low).astype(np.float32).reshape(shape)
            images = images.take(low, axis) * (1 - weight) + images.take(high, axis) * weight
    return images


def restore_labels(labels: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """Prepared labels (slice, row, column), resampled in plane or not -> the source grid."""
    return from_canonical(resample_labels(labels, geometry.canonical_shape[1:]), geometry)


def write_label_nifti(path: Path, labels: NDArray[Any], geometry: Geometry) -> None:
    """Write labels (x, y, z) in the source's grid as uint8 NIfTI, atomically.

    Args:
        path: ends in .nii.gz or .nii.
        labels: integers in [0, 255], in source axes (see `from_canonical`).
        geometry: of the volume that the labels belong to.
    """
    if labels.shape != geometry.shape:
        raise ValueError(f"expected shape {geometry.shape}, got {labels.shape}")
    write_nifti(path, labels.astype(np.uint8), geometry.affine)


def write_nifti(
    path: Path,
    array: NDArray[Any],
    affine: NDArray[np.float64],
    header: nib.Nifti1Header | None = None,
) -> None:
    """Write an array (x, y, z) as NIfTI, atomically; a file that is there already is kept."""
    data = nifti_bytes(array, affine, header)
    if Path(path).name.endswith(".gz"):
        data = gzip.compress(data, compresslevel=6, mtime=0)
    if Path(path).is_file() and Path(path).read_bytes() == data:
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def nifti_bytes(
    array: NDArray[Any], affine: NDArray[np.float64], header: nib.Nifti1Header | None = None
) -> bytes:
    """An uncompressed NIfTI-1 file, or what kind the header is of; the same array gives the same
    bytes.

    Args:
        array: (x, y, z).
        affine: voxel to RAS+ mm.
        header: one with the geometry to write as it is, in place of the affine.
    """
    if header is not None:
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        return kind(array, None, header, dtype=array.dtype).to_bytes()
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    set_grid(image.header, affine)
    return image.to_bytes()


def set_grid(header: nib.Nifti1Header, affine: NDArray[np.float64]) -> None:
    """Scanner coordinates in both of NIfTI's forms: some readers know one, some the other."""
    # the first has no place for shear
    header.set_qform(affine, code=int(not _is_sheared(affine)))
    header.set_sform(affine, code=1)


def nifti_header(path: Path) -> nib.Nifti1Header:
    """The header of a NIfTI file of either version."""
    with _open(path) as file:
        return _nifti_kind(file).header_class.from_fileobj(file)


def largest_distance(first: Geometry, second: Geometry) -> float:
    """How far apart, in mm, two grids of one shape place the same voxel, at worst.

    Affine maps differ most at a corner, so the corners are enough.
    """
    ends = [(0, side - 1) for side in first.shape]
    corners = np.stack([*np.meshgrid(*ends, indexing="ij"), np.ones((2, 2, 2))], -1).reshape(8, 4)
    return float(np.linalg.norm(corners @ (first.affine - second.affine).T, axis=1).max())


def _to_canonical(affine: NDArray[np.float64]) -> NDArray[Any]:
    return orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(CANONICAL)
    )


def _source_axes(affine: NDArray[np.float64]) -> list[int]:
    """The source axis that becomes the slice, row and column axis."""
    return [int(axis) for axis in np.argsort(_to_canonical(affine)[:, 0])]


def _read_nifti(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    with _refusing_damage(path), _open(path) as file:
        image = _nifti_kind(file).from_stream(file)
        array = np.asanyarray(image.dataobj)
        # to the end: gzip compares its checksum there
        while file.read(1 << 20):
            pass
        unit = image.header.get_xyzt_units()[0]
    scale = {"meter": 1000.0, "micron": 0.001}.get(unit, 1.0)
    return array, np.diag([scale, scale, scale, 1.0]) @ image.affine


def _nifti_kind(file: IO[bytes]) -> type[nib.Nifti1Image]:
    """The NIfTI version of an open file, which stays at its start."""
    size = int.from_bytes(file.read(4), "little")
    file.seek(0)
    return nib.Nifti2Image if size in (540, 0x1C020000) else nib.Nifti1Image


def _is_sheared(affine: NDArray[np.float64]) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4)


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb")


def _read_hdf5(path: Path, key: str | None) -> tuple[NDArray[Any], NDArray[np.float64]]:
    with _refusing_damage(path), h5py.File(path, "r") as file:
        if key not in file:
            names = ", ".join(sorted(file)) or "none"
            raise UserError(f"{path}: expected an HDF5 data set {key!r}, found {names}.")
        array = np.array(file[key])
    side = HDF5_SPACING_MM
    return array, np.diag([-side, -side, side, 1.0])


def _read_itk(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    with _refusing_damage(path):
        image = sitk.ReadImage(str(path))
    components = image.GetNumberOfComponentsPerPixel()
    if components != 1:
        raise UserError(f"{path}: expected one value a voxel, found {components} (RGB or vectors).")
    # SimpleITK's arrays are (..., z, y, x)
    array = sitk.GetArrayFromImage(image).transpose()
    if image.GetDimension() != 3:
        return array, np.eye(4)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return array, LPS_TO_RAS @ affine


@contextmanager
def _refusing_damage(path: Path) -> Iterator[None]:
    """Whatever a file's reader stumbles over is the file's fault, and said in one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        lines = lines or [type(error).__name__]
        # ITK puts the reason last, after the place in its own source
        reason = lines[-1] if isinstance(error, RuntimeError) else lines[0]
        reason = reason.replace(str(path), path.name).rstrip(".")
        raise UserError(
            f"{path}: can't be read, damaged or truncated? ({reason}); get it again."
        ) from None


def _check_array(path: Path, array: NDArray[Any]) -> None:
    if array.dtype.names is not None:
        raise UserError(
            f"{path}: expected one value a voxel, found {len(array.dtype.names)} (RGB)."
        )
    if array.dtype.kind not in "biuf":
        raise UserError(f"{path}: expected real numbers, found values of type {array.dtype}.")
    shape = " x ".join(str(side) for side in array.shape)
    if array.ndim != 3:
        raise UserError(f"{path}: expected a 3-D volume, found {array.ndim} dimensions ({shape}).")
    if array.size == 0:
        raise UserError(f"{path}: the volume is empty ({shape} voxels).")


def _check_affine(path: Path, affine: NDArray[np.float64]) -> None:
    finite = bool(np.isfinite(affine).all())
    # an axis without length, or two that coincide, can't be turned to the canonical order
    if not finite or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        values = np.array2string(affine[:3].round(4)).replace("\n", "")
        raise UserError(f"{path}: the geometry is not usable, voxel-to-mm matrix {values}.")

"""Volumes on disk: NIfTI, HDF5, NRRD and MetaImage read as one type, NIfTI written."""

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.files import atomic_path
from pipeline.imaging.geometry import LPS_TO_RAS, Geometry

NIFTI = (".nii.gz", ".nii")
HDF5 = (".h5", ".hdf5")
# ending to ITK's reader of that format; any other one would read what the name doesn't say
ITK = {".nrrd": "NrrdImageIO", ".mhd": "MetaImageIO", ".mha": "MetaImageIO"}
SUFFIXES = (*NIFTI, *HDF5, *ITK)
# HDF5 files store no geometry; this is the spacing of the left-atrium challenge's volumes
HDF5_SPACING_MM = 0.625

sitk.ProcessObject.SetGlobalWarningDisplay(False)


@dataclass(frozen=True, eq=False)
class Volume:
    """An array (x, y, z) in source order and its geometry."""

    array: NDArray[Any]
    geometry: Geometry

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4) float64, voxel index to RAS+ mm."""
        return self.geometry.affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel sides along x, y, z in mm."""
        return self.geometry.spacing


def suffix(path: Path) -> str | None:
    """The ending of `path` among SUFFIXES, None for a format that can't be read."""
    name = Path(path).name.lower()
    return next((ending for ending in SUFFIXES if name.endswith(ending)), None)


def read(path: Path, key: str | None = None) -> Volume:
    """Read a volume from NIfTI, HDF5, NRRD or MetaImage.

    Args:
        path: the file.
        key: name of the data set in an HDF5 file; unused for other formats.

    Returns:
        The volume (x, y, z), its values scaled by the header's slope and intercept.

    Raises:
        UserError: missing, damaged, truncated, of an unknown format, not three-dimensional,
            empty, with several values per voxel, or with an affine that can't be inverted.
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


def write_label_nifti(path: Path, labels: NDArray[Any], geometry: Geometry) -> None:
    """Write labels on the grid of their source as uint8 NIfTI, atomically.

    Args:
        path: ends in .nii.gz or .nii.
        labels: (x, y, z) integers in [0, 255], in source order (see `from_slices`).
        geometry: of the source.

    Raises:
        ValueError: labels of another shape than the source.
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
    """Write an array (x, y, z) as NIfTI, atomically; a file with the same bytes is left alone.

    Args:
        path: compressed with gzip if it ends in .gz.
        array, affine, header: as for `nifti_bytes`.
    """
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
    """The bytes of an uncompressed NIfTI file, the same for the same arguments.

    Args:
        array: (x, y, z).
        affine: (4, 4), voxel index to RAS+ mm.
        header: of NIfTI-1 or NIfTI-2; its geometry is written in place of the affine.
    """
    if header is not None:
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        return kind(array, None, header, dtype=array.dtype).to_bytes()
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    set_grid(image.header, affine)
    return image.to_bytes()


def set_grid(header: nib.Nifti1Header, affine: NDArray[np.float64]) -> None:
    """Put the affine into both of NIfTI's forms, qform and sform: some readers know only one."""
    # a qform can't hold shear
    header.set_qform(affine, code=int(not _is_sheared(affine)))
    header.set_sform(affine, code=1)


def nifti_header(path: Path) -> nib.Nifti1Header:
    """The header of a NIfTI-1 or NIfTI-2 file."""
    with _open(path) as file:
        return _nifti_kind(file).header_class.from_fileobj(file)


def _read_nifti(path: Path) -> tuple[NDArray[Any], NDArray[np.float64]]:
    with _refusing_damage(path), _open(path) as file:
        image = _nifti_kind(file).from_stream(file)
        array = np.asanyarray(image.dataobj)
        # gzip compares its checksum at the end of the file
        while file.read(1 << 20):
            pass
        unit = image.header.get_xyzt_units()[0]
    scale = {"meter": 1000.0, "micron": 0.001}.get(unit, 1.0)
    return array, np.diag([scale, scale, scale, 1.0]) @ image.affine


def _nifti_kind(file: BufferedIOBase) -> type[nib.Nifti1Image]:
    """The image class for the NIfTI version of an open file, which is left at its start."""
    size = int.from_bytes(file.read(4), "little")
    file.seek(0)
    return nib.Nifti2Image if size in (540, 0x1C020000) else nib.Nifti1Image


def _open(path: Path) -> BufferedIOBase:
    return gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb")


def _is_sheared(affine: NDArray[np.float64]) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4)


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
        image = sitk.ReadImage(str(path), imageIO=ITK[suffix(path) or ""])
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
    """Turn any error of a file reader into a UserError that names the file, with the reason."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        lines = lines or [type(error).__name__]
        # ITK's errors begin with lines about its own source code
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
    # with an axis of no length, or two parallel ones, there is no canonical order
    if not finite or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        values = np.array2string(affine[:3].round(4)).replace("\n", "")
        raise UserError(f"{path}: the geometry is not usable, voxel-to-mm matrix {values}.")

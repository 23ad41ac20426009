"""Volumes on disk: NIfTI, HDF5, NRRD and MetaImage read as one type, NIfTI written.

NIfTI is known by its bytes, compressed or not, whichever of its endings the file has.
"""

import gzip
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
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
from pipeline.imaging import file_grids
from pipeline.imaging.geometry import Geometry

NIFTI = (".nii.gz", ".nii")
HDF5 = (".h5", ".hdf5")
# ending to ITK's reader of that format; any other one would read what the name doesn't say
ITK = {".nrrd": "NrrdImageIO", ".mhd": "MetaImageIO", ".mha": "MetaImageIO"}
SUFFIXES = (*NIFTI, *HDF5, *ITK)
GZIP = b"\x1f\x8b"
MOST_LAYERS = 4  # of gzip within gzip
# first bytes of files that are no volume of the format that their ending says, and what to do
FOREIGN = {
    b"version https://git-lfs": "it is a Git LFS pointer; fetch the file with `git lfs pull`",
    b"<!doctype": "it is a web page; get the file itself",
    b"<html": "it is a web page; get the file itself",
    b"\x89HDF": "it is HDF5; rename it to .h5",
    b"NRRD": "it is NRRD; rename it to .nrrd",
    b"ObjectType": "it is MetaImage; rename it to .mha, or .mhd with its voxels beside it",
    b"PK\x03\x04": "it is a zip archive; unpack it",
    GZIP: "it is compressed with gzip; unpack it, or name it .nii.gz if it is NIfTI",
}

sitk.ProcessObject.SetGlobalWarningDisplay(False)


@dataclass(frozen=True, eq=False)
class Volume:
    """An array (x, y, z), or (x, y, z, C) of several channels, in source order and its geometry.

    Attributes:
        array: in the machine's byte order.
        geometry: of the array.
        warnings: what the file leaves open and how it was taken, one sentence each.
    """

    array: NDArray[Any]
    geometry: Geometry
    warnings: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Their number."""
        return 1 if self.array.ndim == 3 else int(self.array.shape[3])

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


def read(path: Path, key: str | None = None, places: Sequence[int] | None = None) -> Volume:
    """Read a volume from NIfTI, HDF5, NRRD or MetaImage.

    Args:
        path: the file.
        key: name of the data set in an HDF5 file; unused for other formats.
        places: of the channels to take along the fourth axis of a NIfTI file; None: the file has
            one channel.

    Returns:
        The volume (x, y, z), or (x, y, z, C) of several places, its values scaled by the header's
        slope and intercept.

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
        array, (affine, warnings) = _read_nifti(path)
    elif ending in HDF5:
        array, (affine, warnings) = _read_hdf5(path, key)
    else:
        array, (affine, warnings) = _read_itk(path)
    if places is not None:
        array = _places(path, array, places)
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    _check_array(path, array, places)
    _check_affine(path, affine)
    warnings += file_grids.of_any(affine)
    return Volume(_native(array), Geometry(array.shape[:3], affine), tuple(warnings))


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


def channels_of(path: Path) -> int:
    """Number of channels that the header of a NIfTI file tells of."""
    with _refusing_damage(path):
        shape = nifti_header(path).get_data_shape()
    return int(np.prod(shape[3:]))


def _read_nifti(path: Path) -> tuple[NDArray[Any], file_grids.Grid]:
    with _refusing_damage(path), _open(path) as file:
        kind = _nifti_kind(file)
        stored = kind.header_class.from_fileobj(file, check=False)
        file.seek(0)
        image = kind.from_stream(file)
        array = np.asanyarray(image.dataobj)
        # gzip compares its checksum at the end of the file
        while file.read(1 << 20):
            pass
        return array, file_grids.of_nifti(image.header, stored)


def _nifti_kind(file: BufferedIOBase) -> type[nib.Nifti1Image]:
    """The image class for the NIfTI version of an open file, which is left at its start."""
    size = int.from_bytes(file.read(4), "little")
    file.seek(0)
    return nib.Nifti2Image if size in (540, 0x1C020000) else nib.Nifti1Image


@contextmanager
def _open(path: Path) -> Iterator[BufferedIOBase]:
    """The file's bytes without any gzip around them."""
    with ExitStack() as stack:
        file: Any = stack.enter_context(open(path, "rb"))
        for _ in range(MOST_LAYERS):
            compressed = file.read(len(GZIP)) == GZIP
            file.seek(0)
            if not compressed:
                break
            file = stack.enter_context(gzip.open(file))
        yield file


def _is_sheared(affine: NDArray[np.float64]) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4)


def _read_hdf5(path: Path, key: str | None) -> tuple[NDArray[Any], file_grids.Grid]:
    with _refusing_damage(path), h5py.File(path, "r") as file:
        if key is None or key not in file or not isinstance(file[key], h5py.Dataset):
            names = ", ".join(sorted(file)) or "none"
            raise UserError(f"{path}: expected an HDF5 data set {key!r}, found {names}.")
        return np.array(file[key]), file_grids.of_hdf5(path, file, key)


def _read_itk(path: Path) -> tuple[NDArray[Any], file_grids.Grid]:
    with _refusing_damage(path):
        image = sitk.ReadImage(str(path), imageIO=ITK[suffix(path) or ""])
    components = image.GetNumberOfComponentsPerPixel()
    if components != 1:
        raise UserError(f"{path}: expected one value a voxel, found {components} (RGB or vectors).")
    # SimpleITK's arrays are (..., z, y, x)
    array = sitk.GetArrayFromImage(image).transpose()
    if image.GetDimension() != 3:
        return array, (np.eye(4), [])
    return array, file_grids.of_itk(path, image)


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """The same values in the machine's byte order, in a type that every library takes."""
    if array.dtype == bool:
        return array.view(np.uint8)
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        return array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


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
        if foreign := _foreign(path):
            raise UserError(f"{path}: can't be read as its ending says: {foreign}.") from None
        raise UserError(
            f"{path}: can't be read, damaged or truncated? ({reason}); get it again."
        ) from None


def _foreign(path: Path) -> str | None:
    """What a file is instead of a volume of its ending, by its first bytes; None: not known."""
    ending = suffix(path)
    own = {".nrrd": b"NRRD", ".mha": b"ObjectType", ".mhd": b"ObjectType"}.get(ending or "")
    if ending in HDF5:
        own = b"\x89HDF"
    try:
        with open(path, "rb") as file:
            start = file.read(64).lstrip()
    except OSError:
        return None
    for beginning, what in FOREIGN.items():
        damaged = beginning == own or (beginning == GZIP and ending in NIFTI)
        if start.lower().startswith(beginning.lower()) and not damaged:
            return what
    return None


def _places(path: Path, array: NDArray[Any], places: Sequence[int]) -> NDArray[Any]:
    """The channels at these places of a 4-D array."""
    shape = " x ".join(str(side) for side in array.shape)
    if suffix(path) not in NIFTI or array.ndim != 4 or array.shape[3] <= max(places):
        raise UserError(
            f"{path}: expected 4-D NIfTI with {max(places) + 1} or more channels along its last "
            f"axis, found {shape}; write it so, or each channel into a file of its own, NAME_0000, "
            "NAME_0001, ... (`hsam predict` also takes --case)."
        )
    return array[..., list(places)]


def _check_array(path: Path, array: NDArray[Any], places: Sequence[int] | None) -> None:
    if array.dtype.names is not None:
        raise UserError(
            f"{path}: expected one value a voxel, found {len(array.dtype.names)} (RGB)."
        )
    if array.dtype.kind not in "biuf":
        raise UserError(f"{path}: expected real numbers, found values of type {array.dtype}.")
    shape = " x ".join(str(side) for side in array.shape)
    if array.ndim != 3 and places is None:
        raise UserError(f"{path}: expected a 3-D volume, found {array.ndim} dimensions ({shape}).")
    if array.size == 0:
        raise UserError(f"{path}: the volume is empty ({shape} voxels).")


def _check_affine(path: Path, affine: NDArray[np.float64]) -> None:
    if not file_grids.is_usable(affine):
        values = np.array2string(affine[:3].round(4)).replace("\n", "")
        raise UserError(f"{path}: the geometry is not usable, voxel-to-mm matrix {values}.")

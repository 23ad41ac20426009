"""Writing label maps on exactly the grid of their source scan, in its format or another.

The geometry is copied, not computed, where source and label map have the same format: NIfTI and
ITK header values, and the header lines of an NRRD file, whose directions ITK would round.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.files import atomic_path
from pipeline.imaging import volumes
from pipeline.imaging.geometry import LPS_TO_RAS, Geometry
from pipeline.imaging.volumes import NIFTI

FORMATS = (".nii.gz", ".nii", ".mha", ".nrrd")  # of label maps
# fields of a NIfTI header that hold the geometry
GRID_FIELDS = [
    "pixdim",
    "qform_code",
    "sform_code",
    "quatern_b",
    "quatern_c",
    "quatern_d",
    "qoffset_x",
    "qoffset_y",
    "qoffset_z",
    "srow_x",
    "srow_y",
    "srow_z",
    "xyzt_units",
]
# beginnings of the lines of an NRRD header that hold the geometry
NRRD_LINES = (
    "space:",
    "space dimension:",
    "space directions:",
    "space origin:",
    "space units:",
)
# largest cosine between two axes of a grid that readers of MetaImage and NRRD accept
ORTHOGONAL = 1e-4


def format_for(like: Path | None) -> str:
    """The file ending for a label map of a scan: that of the scan's format, or else .nii.gz.

    Args:
        like: the scan's file, None for DICOM. For .mhd, which keeps voxels in a second file, it
            is .mha, the same format in one file.
    """
    ending = None if like is None else volumes.suffix(like)
    return {".mhd": ".mha"}.get(ending, ending) if ending in (*FORMATS, ".mhd") else ".nii.gz"


def check_grid(path: Path, geometry: Geometry, like: Path | None = None) -> None:
    """Refuse a label map whose format can't hold the grid of its source, before there are labels.

    Args:
        path, geometry, like: as for `write_labels`.

    Raises:
        UserError: a sheared grid (gantry tilt), which only NIfTI can hold.
    """
    if str(path).endswith(NIFTI) or like_suffix(like) in volumes.ITK:
        return
    direction = geometry.affine[:3, :3] / geometry.spacing
    if np.abs(direction.T @ direction - np.eye(3)).max() > ORTHOGONAL:
        raise UserError(
            f"{path}: {path.suffix} has no place for the source's sheared grid (gantry tilt); "
            "write NIfTI: --format nii.gz."
        )


def write_labels(
    path: Path, labels: NDArray[np.uint8], geometry: Geometry, like: Path | None = None
) -> None:
    """Write labels on the grid of their source, atomically.

    Args:
        path: ends in one of FORMATS.
        labels: (x, y, z) in source order.
        geometry: of the source.
        like: the source's file, None for DICOM; in the same format, its geometry is copied.

    Raises:
        UserError: a sheared grid (gantry tilt), which only NIfTI can hold.
        ValueError: labels of another shape than the source.
    """
    if labels.shape != geometry.shape:
        raise ValueError(f"expected shape {geometry.shape}, got {labels.shape}")
    if str(path).endswith(NIFTI):
        if like is not None and volumes.suffix(like) in NIFTI:
            volumes.write_nifti(path, labels, geometry.affine, _nifti_header(like))
        else:
            volumes.write_nifti(path, labels, geometry.affine)
        return
    check_grid(path, geometry, like)
    image = _itk_image(labels, geometry, like)
    with atomic_path(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)
        if like is not None and path.suffix == like_suffix(like) == ".nrrd":
            _take_lines(temporary, like)


def like_suffix(like: Path | None) -> str | None:
    """The ending of the source's file, None for DICOM."""
    return None if like is None else volumes.suffix(like)


def _nifti_header(like: Path) -> nib.Nifti1Header:
    """A new NIfTI header with the geometry of a file; names and free text are not copied."""
    source = volumes.nifti_header(like)
    header = type(source)()
    for field in GRID_FIELDS:
        header[field] = source[field]
    return header


def _itk_image(labels: NDArray[np.uint8], geometry: Geometry, like: Path | None) -> sitk.Image:
    """The label map as ITK's image, its grid that of the source."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels.transpose()))
    if like_suffix(like) in volumes.ITK:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(like))
        reader.ReadImageInformation()
        # it is not in millimetres where the header names another unit
        millimetres = np.allclose(reader.GetSpacing(), geometry.spacing, rtol=1e-4)
        if reader.GetDimension() == 3 and millimetres:
            image.SetOrigin(reader.GetOrigin())
            image.SetSpacing(reader.GetSpacing())
            image.SetDirection(reader.GetDirection())
            return image
    affine = LPS_TO_RAS @ geometry.affine
    direction = affine[:3, :3] / geometry.spacing
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(geometry.spacing)
    image.SetDirection(direction.ravel().tolist())
    return image


def _take_lines(path: Path, like: Path) -> None:
    """Replace the geometry lines in the header of an NRRD file by those of another file."""
    head, voxels = path.read_bytes().split(b"\n\n", 1)
    geometry = [line for line in _nrrd_header(like) if line.startswith(NRRD_LINES)]
    if not any(line.startswith("space directions:") for line in geometry):
        return
    others = [line for line in head.decode().splitlines() if not line.startswith(NRRD_LINES)]
    path.write_bytes("\n".join([*others, *geometry]).encode() + b"\n\n" + voxels)


def _nrrd_header(path: Path) -> list[str]:
    """Lines of an NRRD file before its voxels."""
    lines = []
    with open(path, "rb") as file:
        for line in file:
            if not line.strip():
                break
            lines.append(line.decode("utf-8", "replace").strip())
    return lines

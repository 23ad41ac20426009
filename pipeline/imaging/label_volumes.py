"""Label maps on exactly the grid of their source, in its format or another.

NIfTI and MetaImage headers keep a source's geometry to the last bit. An NRRD file gets the very
lines of its source, since reading and writing a direction would round it.
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

FORMATS = (".nii.gz", ".nii", ".mha", ".nrrd")
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
NRRD_LINES = ("space:", "space dimension:", "space directions:", "space origin:")
ORTHOGONAL = 1e-4  # largest cosine between two axes of a grid that MetaImage and NRRD readers take


def format_for(like: Path | None) -> str:
    """The ending of a label map in its source's format; NIfTI where that can't be written.

    A .mhd points to a second file, so its label map is the one-file form of the same format.
    """
    ending = None if like is None else volumes.suffix(like)
    return {".mhd": ".mha"}.get(ending, ending) if ending in (*FORMATS, ".mhd") else ".nii.gz"


def write_labels(
    path: Path, labels: NDArray[np.uint8], geometry: Geometry, like: Path | None = None
) -> None:
    """Write labels (x, y, z) on the grid of their source, atomically.

    Args:
        path: ends in one of FORMATS.
        labels: in the source's axes.
        geometry: of the source.
        like: the source's file, where there is one; its header's geometry is taken over.

    Raises:
        UserError: a sheared grid (gantry tilt) in a format that has no place for it.
        ValueError: labels of another shape.
    """
    if labels.shape != geometry.shape:
        raise ValueError(f"expected shape {geometry.shape}, got {labels.shape}")
    if str(path).endswith(NIFTI):
        if like is not None and volumes.suffix(like) in NIFTI:
            volumes.write_nifti(path, labels, geometry.affine, _nifti_header(like))
        else:
            volumes.write_nifti(path, labels, geometry.affine)
        return
    image = _itk_image(path, labels, geometry, like)
    with atomic_path(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)
        if path.suffix == like_suffix(like) == ".nrrd":
            _take_lines(temporary, like)


def like_suffix(like: Path | None) -> str | None:
    """The ending of the source's file, None where there is none."""
    return None if like is None else volumes.suffix(like)


def _nifti_header(like: Path) -> nib.Nifti1Header:
    """A NIfTI header with the geometry of a file and nothing else of it: no text, no names."""
    source = volumes.nifti_header(like)
    header = type(source)()
    for field in GRID_FIELDS:
        header[field] = source[field]
    return header


def _itk_image(
    path: Path, labels: NDArray[np.uint8], geometry: Geometry, like: Path | None
) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(labels.transpose()))
    if like_suffix(like) in volumes.ITK:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(like))
        reader.ReadImageInformation()
        if reader.GetDimension() == 3:
            image.SetOrigin(reader.GetOrigin())
            image.SetSpacing(reader.GetSpacing())
            image.SetDirection(reader.GetDirection())
            return image
    affine = LPS_TO_RAS @ geometry.affine
    direction = affine[:3, :3] / geometry.spacing
    if np.abs(direction.T @ direction - np.eye(3)).max() > ORTHOGONAL:
        raise UserError(
            f"{path}: {path.suffix} has no place for the source's sheared grid (gantry tilt); "
            "write NIfTI: --format nii.gz."
        )
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetSpacing(geometry.spacing)
    image.SetDirection(direction.ravel().tolist())
    return image


def _take_lines(path: Path, like: Path) -> None:
    """Put the geometry lines of one NRRD file's header into another's."""
    head, voxels = path.read_bytes().split(b"\n\n", 1)
    own, source = head.decode().splitlines(), _nrrd_header(like)
    theirs = [line for line in source if line.startswith(NRRD_LINES)]
    if not any(line.startswith("space directions:") for line in theirs):
        return
    kept = [line for line in own if not line.startswith(NRRD_LINES)]
    path.write_bytes("\n".join([*kept, *theirs]).encode() + b"\n\n" + voxels)


def _nrrd_header(path: Path) -> list[str]:
    lines = []
    with open(path, "rb") as file:
        for line in file:
            if not line.strip():
                break
            lines.append(line.decode("utf-8", "replace").strip())
    return lines

"""Random grids of scans, and scans on them in every format."""

from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from pipeline.imaging.geometry import LPS_TO_RAS

ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd", ".mhd")


def random_grid(random: np.random.Generator) -> tuple[list[int], np.ndarray]:
    """Which source axis becomes slice, row and column, and an affine.

    Axes are permuted and flipped, tilted by up to some 30 degrees, and have unlike spacings.
    """
    order = random.permutation(3)
    signed = np.zeros((3, 3))
    signed[np.arange(3), order] = random.choice([-1, 1], 3)
    tilt = np.linalg.qr(np.eye(3) + random.uniform(-0.25, 0.25, (3, 3)))[0]
    tilt = tilt * np.sign(np.diag(tilt))
    affine = np.eye(4)
    affine[:3, :3] = tilt @ signed * random.uniform(0.3, 5, 3)
    affine[:3, 3] = random.uniform(-300, 300, 3)
    # rows of the affine are right, front, head; canonical order is slice, row, column
    return [int(order[2]), int(order[1]), int(order[0])], affine


def write_scan(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """Write (x, y, z) with the format's own library, as others would."""
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(array, affine), path)
        return path
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose()))
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path))
    return path

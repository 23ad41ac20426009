"""Tiny data sets in nnU-Net's raw format, with an organ whose size and intensity are known."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from nibabel import orientations

from pipeline.core.params.blocks import Dataset
from tests.pipeline.conftest import make_params, save_nifti

SHAPE = (12, 14, 16)
ORGAN = (2, 3, 4)


def write_nnunet(
    root: Path,
    *,
    cases: int = 5,
    spacing: tuple[float, float, float] = (1, 1, 1),
    axes: str = "RAS",
    channel: str = "T2",
    air: int = 0,
    shape: tuple[int, int, int] = SHAPE,
    sizes: Mapping[str, tuple[int, int, int]] | None = None,
) -> Path:
    """Cases c0, c1, ... (x, y, z): `air` around a box of 100 that is the liver.

    Args:
        root: to fill.
        cases: how many.
        spacing: voxel sides along x, y, z, mm.
        axes: directions in which x, y and z grow.
        channel: the modality's name.
        air: intensity around the organ; one voxel has 1 more.
        shape: voxels along x, y, z.
        sizes: case to the sides of its organ, where they aren't ORGAN.
    """
    affine = np.eye(4)
    for axis, (way, sign) in enumerate(orientations.axcodes2ornt(axes)):
        affine[:3, axis] = sign * spacing[axis] * np.eye(3)[int(way)]
    for number in range(cases):
        case = f"c{number}"
        x, y, z = (sizes or {}).get(case, ORGAN)
        label = np.zeros(shape, np.uint8)
        label[1 : 1 + x, 1 : 1 + y, 1 : 1 + z] = 1
        image = np.where(label, 100, air).astype(np.int16)
        image[-1, -1, -1] += 1
        save_nifti(root / "imagesTr" / f"{case}_0000.nii.gz", image, affine)
        save_nifti(root / "labelsTr" / f"{case}.nii.gz", label, affine)
    about = {
        "name": "Toy",
        "channel_names": {"0": channel},
        "labels": {"background": 0, "liver": 1},
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(about))
    return root


def block(root: Path) -> Dataset:
    """The block `dataset` for such a folder."""
    return make_params(dataset={"name": "nnunet", "root": str(root)}).dataset

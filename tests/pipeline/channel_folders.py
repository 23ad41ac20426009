"""Tiny data sets whose scans have several channels, on anisotropic grids with flipped axes."""

import json
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.pipeline.conftest import save_nifti

NAMES = ("T2", "ADC", "DWI", "T1")
SHAPE = (40, 36, 9)
# LPS, RAS and LAS, with thick slices
SIGNS = ((-1, -1, 1), (1, 1, 1), (-1, 1, 1))
SPACING = (0.8, 0.7, 3.0)


def affine(number: int) -> np.ndarray:
    """The grid of a case."""
    found = np.diag([*np.multiply(SIGNS[number % len(SIGNS)], SPACING), 1.0])
    found[:3, 3] = (12, -30, 5)
    return found


def channels(number: int, count: int = 2) -> tuple[list[np.ndarray], np.ndarray]:
    """Channels (x, y, z) of a case, and its labels: 1 where T2 is bright and ADC is dark.

    Either channel alone shows a box too many, so that only both together tell the organ.
    """
    random = np.random.Generator(np.random.Philox(key=[7, number]))
    x, y = random.integers(4, 9, 2)
    organ, bright, dark = (np.zeros(SHAPE, bool) for _ in range(3))
    organ[x : x + 12, y : y + 12, 2:7] = True
    bright[x + 14 : x + 26, y : y + 12, 2:7] = True
    dark[x : x + 12, y + 13 : y + 25, 2:7] = True
    t2 = 100 + 300 * (organ | bright) + random.normal(0, 20, SHAPE)
    adc = 1500 - 900 * (organ | dark) + random.normal(0, 60, SHAPE)
    others = [random.normal(500, 80, SHAPE) for _ in range(count - 2)]
    return [each.astype(np.float32) for each in (t2, adc, *others)], organ.astype(np.uint8)


def write_raw(root: Path, cases: int = 6, count: int = 2, names: Sequence[str] = NAMES) -> Path:
    """nnU-Net's raw format: c0_0000, c0_0001, ... with channel_names in dataset.json."""
    for number in range(cases):
        images, labels = channels(number, count)
        for place, image in enumerate(images):
            path = root / "imagesTr" / f"c{number}_{place:04}.nii.gz"
            save_nifti(path, image, affine(number))
        save_nifti(root / "labelsTr" / f"c{number}.nii.gz", labels, affine(number))
    about = {
        "channel_names": {str(place): names[place] for place in range(count)},
        "labels": {"background": 0, "lesion": 1},
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(about))
    return root


def write_decathlon(root: Path, cases: int = 6, count: int = 2) -> Path:
    """The Decathlon's: 4-D images that dataset.json lists, with its `modality`."""
    training = []
    for number in range(cases):
        images, labels = channels(number, count)
        whole = np.stack(images, axis=-1)
        save_nifti(root / "imagesTr" / f"c{number}.nii.gz", whole, affine(number))
        save_nifti(root / "labelsTr" / f"c{number}.nii.gz", labels, affine(number))
        names = {"image": f"./imagesTr/c{number}.nii.gz", "label": f"./labelsTr/c{number}.nii.gz"}
        training.append(names)
    about = {
        "name": "Toy",
        "modality": {str(place): NAMES[place] for place in range(count)},
        "labels": {"0": "background", "1": "lesion"},
        "training": training,
    }
    (root / "dataset.json").write_text(json.dumps(about))
    return root


def write_pairs(root: Path, cases: int = 6) -> Path:
    """Files that pair up by name: c0/c0-T2, c0/c0-ADC and c0/c0-seg."""
    for number in range(cases):
        images, labels = channels(number)
        folder = root / f"c{number}"
        for name, image in zip(NAMES, images, strict=False):
            save_nifti(folder / f"c{number}-{name}.nii.gz", image, affine(number))
        save_nifti(folder / f"c{number}-seg.nii.gz", labels, affine(number))
    return root


def dice(truth: Path, found: Path) -> float:
    """Dice of label 1 in two files."""
    first, second = (np.asarray(nib.load(path).dataobj) == 1 for path in (truth, found))
    return 2 * (first & second).sum() / (first.sum() + second.sum())

"""Writes cases as nnU-Net reads them: its raw format.

Files lie on the grid of their source. Slices without labels carry nnU-Net's ignore label, on which
it computes no loss: it learns from the slices that the split gives, and from no other.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.datasets.nnunet import JSON
from pipeline.datasets.nnunet_folds import PREPROCESSED
from pipeline.imaging.channels import each
from pipeline.imaging.geometry import Geometry, slices_view
from pipeline.imaging.intensity import Rules, each_rule
from pipeline.imaging.volumes import Volume, write_label_nifti, write_nifti

# the folders that nnU-Net's environment variables of these names tell it
RAW = "nnUNet_raw"
FOLDERS = (RAW, PREPROCESSED, "nnUNet_results")
IGNORE = "ignore"
ENDING = ".nii.gz"
RECORD = "hsam"  # the key of dataset.json that nnU-Net passes on to its models and predictions
LARGEST = 255  # label of a file


def folder_name(number: int, name: str) -> str:
    """The folder of a data set, such as Dataset501_synapse."""
    return f"Dataset{number:03d}_{name}"


def description(
    organs: Sequence[str],
    rules: Rules,
    channels: Sequence[str],
    training: int,
    sparse: bool,
    record: Mapping[str, Any],
) -> dict[str, Any]:
    """The content of dataset.json.

    Args:
        organs: `organs[k - 1]` is class k, which is also its label.
        rules: of the intensities of each channel: a window is one of CT, which nnU-Net normalises
            in its own way.
        channels: their names, where there are several in the data set.
        training: number of cases in imagesTr.
        sparse: whether a label volume has the ignore label.
        record: what the data set was made of.

    Raises:
        UserError: more organs than files have labels for.
    """
    labels = {"background": 0} | {organ: label for label, organ in enumerate(organs, 1)}
    if sparse:
        labels[IGNORE] = ignore_label(organs)
        if labels[IGNORE] > LARGEST:
            raise UserError(
                f"dataset: {len(organs)} organs leave no label up to {LARGEST} for nnU-Net's "
                "ignore label; name fewer in dataset.labels."
            )
    modalities = ["CT" if rule.kind == "window" else "MR" for rule in each_rule(rules)]
    names = [
        "CT" if modality == "CT" else name
        for modality, name in zip(modalities, channels or modalities, strict=True)
    ]
    return {
        "channel_names": {str(number): name for number, name in enumerate(names)},
        "labels": labels,
        "numTraining": training,
        "file_ending": ENDING,
        RECORD: dict(record),
    }


def ignore_label(organs: Sequence[str]) -> int:
    """The label of voxels without truth; nnU-Net wants it to be the highest."""
    return len(organs) + 1


def sparse_labels(
    classes: NDArray[np.uint8],
    geometry: Geometry,
    axes: str,
    labelled: Collection[int],
    ignore: int,
) -> NDArray[np.uint8]:
    """Labels whose other slices have the ignore label.

    Args:
        classes: (x, y, z) in source order.
        geometry: of the source.
        axes: of the slices.
        labelled: places of the slices that keep their labels.
        ignore: the ignore label.

    Returns:
        (x, y, z) in source order.
    """
    found = classes.copy()
    slices = slices_view(found, geometry, axes)
    without = np.ones(len(slices), bool)
    without[list(labelled)] = False
    slices[without] = ignore
    return found


def write_image(folder: Path, case: str, image: Volume) -> None:
    """Write an image, a file a channel; its values stay, in a type that is widely read."""
    for number, array in enumerate(each(image.array)):
        if array.dtype.itemsize > 4:
            whole = array.dtype.kind in "iu" and abs(array).max(initial=0) < 2**31
            array = array.astype(np.int32 if whole else np.float32)
        write_nifti(folder / f"{case}_{number:04}{ENDING}", array, image.affine)


def write_labels(folder: Path, case: str, labels: NDArray[np.uint8], geometry: Geometry) -> None:
    """Write the labels of a case on the grid of its image."""
    write_label_nifti(folder / f"{case}{ENDING}", labels, geometry)


def write_description(folder: Path, content: Mapping[str, Any]) -> None:
    """Write dataset.json."""
    files.write_json(folder / JSON, dict(content))


def read_record(folder: Path) -> dict[str, Any] | None:
    """What the dataset.json of a folder says that it was made of; None where it doesn't say."""
    try:
        found = files.read_json(folder / JSON)[RECORD]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None

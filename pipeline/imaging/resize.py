"""Slices resized in plane, to another spacing or the side of a model and back: one rule for all."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) floating point -> (B, C, *size), bilinear; low-pass filtered when shrinking."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


def resample_images(images: NDArray[Any], size: tuple[int, int]) -> NDArray[np.float32]:
    """(slices, rows, columns) -> (slices, *size) float32, as `resize_images`.

    Slices of C channels (slices, C, rows, columns) become (slices, C, *size).

    The field of view stays: the outer edges of the first and last pixel keep their places.
    """
    resized = np.empty((*images.shape[:-2], *size), np.float32)
    # slice by slice: the filter's own copies are of one slice, whatever the volume
    for index, image in enumerate(images):
        # a copy: torch takes no array with flipped axes
        batch = torch.from_numpy(np.array(image, np.float32, order="C"))
        batch = batch.view(1, -1, *batch.shape[-2:])
        resized[index] = resize_images(batch, size)[0].view(resized.shape[1:]).numpy()
    return resized


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W) uint8 -> (B, *size), the label at the nearest pixel centre."""
    if labels.shape[-2:] == size:
        return labels
    return F.interpolate(labels.unsqueeze(1), size=size, mode="nearest-exact").squeeze(1)


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *size), bilinear."""
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)

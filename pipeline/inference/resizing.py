"""How slices come to the side of a model, and its answers back to the slices.

A model is used with the resizing that it was trained with: this pipeline's ("linear"), or that of
the published H-SAM code ("published"), which imported checkpoints expect.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.imaging.resize import resize_images, resize_logits
from pipeline.inference.records import resizing_name

Plane = tuple[int, int]  # rows and columns


@dataclass(frozen=True)
class Resizing:
    """Both ways; a slice that has the model's side already stays as it is.

    Attributes:
        to_model: images (B, H, W) or (B, C, H, W) in [0, 1], size, device -> (B, C, *size) there.
        to_slices: logits (B, C, S, S), size -> (B, C, *size).
    """

    to_model: Callable[[NDArray[np.float32], Plane, str], Tensor]
    to_slices: Callable[[Tensor, Plane], Tensor]


def linear_images(images: NDArray[np.float32], size: Plane, device: str) -> Tensor:
    """(B, H, W) or (B, C, H, W) -> (B, C, *size), bilinear, low-pass filtered when shrinking."""
    batch = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return resize_images(batch.unsqueeze(1) if batch.ndim == 3 else batch, size)


def spline_images(images: NDArray[np.float32], size: Plane, device: str) -> Tensor:
    """(B, H, W) -> (B, 1, *size), cubic splines between the first and the last pixel's centres.

    There is no low-pass filter, and values may leave [0, 1] a little: both as in the source.

    Source: the published H-SAM code, utils.py, `test_single_volume`: `scipy.ndimage.zoom`, order 3.
    """
    if images.shape[1:] != size:
        from scipy import ndimage  # slow to import, and seldom needed

        zoom = [new / old for new, old in zip(size, images.shape[1:], strict=True)]
        images = np.stack([ndimage.zoom(image, zoom, order=3) for image in images])
    return torch.from_numpy(np.ascontiguousarray(images, np.float32)).unsqueeze(1).to(device)


def nearest_logits(logits: Tensor, size: Plane) -> Tensor:
    """(B, C, S, S) -> (B, C, *size): those of the nearest pixel, so that labels are chosen at S.

    Source: the published H-SAM code, utils.py, `test_single_volume`: `scipy.ndimage.zoom` of the
    labels, order 0.
    """
    from scipy import ndimage

    for axis, new in zip((2, 3), size, strict=True):
        old = logits.shape[axis]
        if new != old:
            places = ndimage.zoom(np.arange(old), new / old, order=0)
            logits = logits.index_select(axis, torch.from_numpy(places).to(logits.device))
    return logits


LINEAR = Resizing(linear_images, resize_logits)
PUBLISHED = Resizing(spline_images, nearest_logits)


def resizing(record: Mapping[str, Any]) -> Resizing:
    """The resizing that a model's record (model.json) names; "linear" where it names none.

    Raises:
        ValueError: an unknown one.
    """
    return {"linear": LINEAR, "published": PUBLISHED}[resizing_name(record)]

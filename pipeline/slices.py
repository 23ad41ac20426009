"""Slices as tensors of one size: what training and prediction share."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.shards import ShardReader


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W) floating -> (B, 1, *size): bilinear, smoothed first where it shrinks."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W) uint8 -> (B, *size): the label at the nearest pixel centre."""
    if labels.shape[-2:] == size:
        return labels
    return F.interpolate(labels.unsqueeze(1), size=size, mode="nearest-exact").squeeze(1)


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) -> (B, C, *size), bilinear."""
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class SliceSet:
    """Slices in memory, resized to S x S.

    Attributes:
        images: (N, 1, S, S) float32 in [0, 1].
        labels: (N, S, S) uint8, 0 for the background.
        names: case and slice index of each.
    """

    images: Tensor
    labels: Tensor
    names: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return len(self.names)


def load_slices(shards: Path, names: Iterable[tuple[str, int]], image_size: int) -> SliceSet:
    """Read the named slices (case, index) from their shards, resized, in the order given."""
    names = tuple(names)
    size = (image_size, image_size)
    images = torch.empty(len(names), 1, *size)
    labels = torch.empty(len(names), *size, dtype=torch.uint8)
    readers: dict[str, ShardReader] = {}
    for position, (case, index) in enumerate(names):
        reader = readers.setdefault(case, ShardReader(shards / f"{case}.parquet"))
        item = reader.read(index)
        image = torch.from_numpy(item.image)[None, None]  # 1 x 1 x H x W
        images[position] = resize_images(image, size)[0]
        labels[position] = resize_labels(torch.from_numpy(item.label)[None], size)[0]
    return SliceSet(images, labels, names)

"""Batches of slices resized to the side of the model and back, in training and prediction alike."""

from torch import Tensor
from torch.nn import functional as F


def resize_images(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, 1, H, W) floating point -> (B, 1, *size), bilinear; low-pass filtered when shrinking."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)


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

"""Random affine transforms of whole batches: image and label through one resampling."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.params import Augment


def augment(
    images: Tensor, labels: Tensor, settings: Augment, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Rotate, scale and shift a random share of the slices.

    Args:
        images: (B, 1, S, S) float32 in [0, 1]; interpolated bilinearly, 0 outside.
        labels: (B, S, S) uint8; the nearest label, 0 outside, so no class is invented.
        settings: share of the slices and the largest rotation, scale and shift.
        generator: on the CPU; the same one gives the same transforms on every device.

    Returns:
        Images and labels of the same shapes and dtypes.
    """
    batch = len(images)
    draws = torch.rand(5, batch, generator=generator)
    chosen = draws[0] < settings.probability
    angle = (2 * draws[1] - 1) * math.radians(settings.rotation_degrees)
    zoom = 1 + (2 * draws[2] - 1) * settings.scale
    shift = (2 * draws[3:] - 1) * 2 * settings.shift  # the grid's side is 2
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    rows = [torch.stack([cos, -sin, shift[0]], -1), torch.stack([sin, cos, shift[1]], -1)]
    theta = torch.stack(rows, 1)  # B x 2 x 3
    theta = torch.where(chosen[:, None, None], theta, torch.eye(2, 3))
    grid = F.affine_grid(theta.to(images.device), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    nearest = F.grid_sample(labels[:, None].float(), grid, mode="nearest", align_corners=False)
    return moved, nearest[:, 0].to(labels.dtype)

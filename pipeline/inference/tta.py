"""Test-time augmentation: logits averaged over slightly rotated and scaled copies of a slice.

None is mirrored: a mirrored abdomen has its liver on the left, and left and right kidney are
different organs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hsam.model import SegmentationModel
from pipeline.inference.volume import Forward, forward


@dataclass(frozen=True)
class View:
    """A slice rotated by `degrees` about its centre and enlarged by the factor `scale`."""

    degrees: float
    scale: float

    def matrix(self) -> Tensor:
        """(2, 3): maps (x, y, 1) in the view to (x, y) in the slice, both in [-1, 1]."""
        angle = math.radians(self.degrees)
        cos, sin = math.cos(angle) / self.scale, math.sin(angle) / self.scale
        return torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]])

    def inverse(self) -> "View":
        """The view that undoes this one."""
        return View(-self.degrees, 1 / self.scale)


# within the range of the training's augmentation: rotations to 20 degrees, scales within 20%
VIEWS = (View(10, 1.0), View(-10, 1.0), View(0, 0.9), View(0, 1.1))


def averaged(
    model: SegmentationModel,
    images: Tensor,
    stages: Sequence[str],
    views: Sequence[View] = VIEWS,
    forward: Forward = forward,
) -> dict[str, Tensor]:
    """Logits of a batch, averaged over the images and their views.

    A pixel outside a view is averaged over the others only. There is one forward pass at a time, so
    the memory is that of plain prediction.

    Args:
        model: in eval mode.
        images: (B, C, S, S) in [0, 1].
        stages: names of stages, as for `Segmentation.logits`.
        views: copies to average with the images themselves.
        forward: how a batch becomes logits, of each view.

    Returns:
        Stage to logits (B, C, S, S).
    """
    total = forward(model, images, stages)
    ones = torch.ones_like(images[:, :1])
    weight = ones
    for view in views:
        seen = forward(model, warp(images, view), stages)
        shown = warp(warp(ones, view), view.inverse())
        weight = weight + shown
        for stage in stages:
            total[stage] = total[stage] + shown * warp(seen[stage], view.inverse())
    return {stage: logits / weight for stage, logits in total.items()}


def warp(images: Tensor, view: View) -> Tensor:
    """(B, C, S, S) -> their view, (B, C, S, S), bilinear, 0 outside of the images."""
    theta = view.matrix().to(images.device).expand(len(images), -1, -1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images.dtype), mode="bilinear", align_corners=False)

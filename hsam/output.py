"""The output of every model of this library."""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

STAGES = ("mean", "coarse", "fine")


@dataclass(frozen=True)
class Segmentation:
    """Logits of one or two stages for C classes, of which class 0 is the background.

    Attributes:
        coarse_logits: (B, C, S/scale, S/scale); None: the model has no coarse stage.
        fine_logits: (B, C, S, S); None: the model has no fine stage.
        coarse_iou: (B, C), IoU of each class that the coarse stage predicts, or None.
        fine_iou: (B, C), IoU of each class that the fine stage predicts, or None.
        scale: how many times smaller the side of the coarse logits is than S.
    """

    coarse_logits: Tensor | None = None
    fine_logits: Tensor | None = None
    coarse_iou: Tensor | None = None
    fine_iou: Tensor | None = None
    scale: int = 4

    def first(self, count: int) -> "Segmentation":
        """The output for the first `count` images of the batch."""
        parts: dict[str, Any] = {
            name: value[:count] for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **parts)

    def logits(self, stage: str = "mean") -> Tensor:
        """Logits at full resolution, (B, C, S, S).

        Args:
            stage: "coarse" (resized bilinearly), "fine", or "mean" of the two. For a model with one
                stage, "mean" is that stage.

        Raises:
            ValueError: unknown stage, or one that the model doesn't have.

        Source: paper, supplement C.3 and figure 8.
        """
        if stage not in STAGES:
            raise ValueError(f"stage: expected one of {STAGES}, got {stage!r}")
        if stage == "mean" and self.coarse_logits is not None and self.fine_logits is not None:
            return (self.logits("coarse") + self.fine_logits) / 2
        if stage != "coarse" and self.fine_logits is not None:
            return self.fine_logits
        if stage == "fine" or self.coarse_logits is None:
            raise ValueError(f"stage: this model has no {stage} stage")
        if self.scale == 1:
            return self.coarse_logits
        return F.interpolate(
            self.coarse_logits, scale_factor=self.scale, mode="bilinear", align_corners=False
        )


# torch.export can save models that return a Segmentation
torch.export.register_dataclass(Segmentation, serialized_type_name="hsam.Segmentation")

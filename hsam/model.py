"""What all models of the library share."""

from typing import Any

import torch
from torch import nn


class SegmentationModel(nn.Module):
    """What all models share.

    Attributes:
        image_size: side S of the images, in pixels.
        classes: number of classes C, background included.
        config: arguments that build this model again, without any path; JSON-ready.
        sam_sha256: SHA-256 of the SAM checkpoint that was loaded, or None.
        generator: source of the training noise when forward gets none; None: PyTorch's global one.
    """

    def __init__(self, image_size: int, classes: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.classes = classes
        self.config: dict[str, Any] = {}
        self.sam_sha256: str | None = None
        self.generator: torch.Generator | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters."""
        return next(self.parameters()).dtype

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Parameters that training moves, in a fixed order."""
        return [p for p in self.parameters() if p.requires_grad]

    def count_trainable(self) -> int:
        """How many numbers training moves."""
        return sum(p.numel() for p in self.trainable_parameters())

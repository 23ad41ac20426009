"""What all models of the library share."""

from typing import Any

import torch
from torch import nn


class SegmentationModel(nn.Module):
    """Base class of all models.

    Attributes:
        image_size: side S of the images, in pixels.
        classes: number of classes C, background included.
        config: the builder's arguments without paths, as JSON values; `hsam.build` takes them.
        sam_sha256: SHA-256 of the SAM checkpoint that was loaded, or None.
        generator: random number generator for training, if `forward` is given none; None:
            PyTorch's global one.
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
        """Dtype of the first parameter."""
        return next(self.parameters()).dtype

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Parameters that require a gradient, in the order of `parameters()`."""
        return [p for p in self.parameters() if p.requires_grad]

    def count_trainable(self) -> int:
        """Number of trainable weights."""
        return sum(p.numel() for p in self.trainable_parameters())

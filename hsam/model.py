"""What all models of the library share."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hsam.encoders.base import ImageEncoder
from hsam.inputs import check_embedding, check_images


class SegmentationModel(nn.Module):
    """Base class of all models.

    Attributes:
        image_size: side S of the images, in pixels.
        classes: number of classes C, background included.
        config: the builder's arguments without paths, as JSON values; `hsam.build` takes them.
        sam_sha256: SHA-256 of the SAM checkpoint that was loaded, or None.
        pretrained: names of the parameters and buffers that have the values of that checkpoint.
        generator: random number generator for training, if `forward` is given none; None:
            PyTorch's global one.
    """

    def __init__(self, image_size: int, classes: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.classes = classes
        self.config: dict[str, Any] = {}
        self.sam_sha256: str | None = None
        self.pretrained: frozenset[str] = frozenset()
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


class EncodedModel(SegmentationModel):
    """A model whose decoders read the embedding of an image encoder.

    Attributes:
        image_encoder: the encoder; its side E may differ from that of the images.
        neck: brings embeddings to the decoders' width; it is trained where it has weights.
    """

    def __init__(self, image_encoder: ImageEncoder, image_size: int, classes: int) -> None:
        super().__init__(image_size, classes)
        self.image_encoder = image_encoder
        self.neck = image_encoder.new_neck()
        self._side, self._grid = image_encoder.image_size, image_encoder.grid
        self._width = image_encoder.width

    @property
    def embedding_shape(self) -> tuple[int, int, int]:
        """(D, G, G) of one embedding."""
        return self._width, self._grid, self._grid

    def embed(self, image: Tensor) -> Tensor:
        """The embedding of images.

        Args:
            image: (B, 1 to 3, S, S), floating, in [0, 1], as `hsam.inputs.check_images` takes them.

        Returns:
            (B, D, G, G).

        Raises:
            TypeError, ValueError: images of another dtype or shape.
        """
        image = check_images(image, self.image_size, self.dtype)
        if self._side != self.image_size:
            side = (self._side, self._side)
            image = F.interpolate(image, side, mode="bilinear", antialias=True)
        embedding: Tensor = self.image_encoder(image)
        return embedding

    def embedding_of(self, image: Tensor | None, embedding: Tensor | None) -> Tensor:
        """What the decoders take, of `embed(image)` or of a given embedding: (B, width, G, G).

        Raises:
            TypeError, ValueError: both or none are given, or one of another dtype or shape.
        """
        if (image is None) == (embedding is None):
            raise ValueError("image: expected either images or their embedding")
        if image is not None:
            features = self.embed(image)
        else:
            features = check_embedding(embedding, self._grid, self.dtype)
        found: Tensor = self.neck(features)
        return found

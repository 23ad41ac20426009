"""What every image encoder offers to decoders, LoRA, freezing and loading."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from hsam.backbones import Backbone
from hsam.norm import LayerNorm2d


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear layer of an attention block that LoRA can adapt.

    Attributes:
        owner: the module that has the layer.
        name: its attribute in `owner`.
        parts: what equal blocks of its outputs are, such as ("q", "k", "v").
        order: (outputs,), for each output its place among those blocks one after the other; None:
            the blocks lie one after the other.
    """

    owner: nn.Module
    name: str
    parts: tuple[str, ...] = ("q", "k", "v")
    order: Tensor | None = None

    @property
    def layer(self) -> nn.Linear:
        """The layer itself."""
        layer: nn.Linear = getattr(self.owner, self.name)
        return layer


class ImageEncoder(nn.Module):
    """Base of the image encoders.

    A forward pass takes images (B, 3, E, E) in [0, 1] and gives embeddings (B, D, G, G).

    Attributes:
        image_size: side E of the images in pixels.
        grid: side G of the embedding.
        width: its channels D.
        normalise: whether images are first brought into the value range of the pretraining.
        own_files: whether `load_file` reads its weights; False: they are in a file of SAM's form.
    """

    image_size: int
    grid: int
    width: int
    normalise: bool = False
    own_files: bool = False
    _decoder_width: int
    _mean: tuple[float, ...]
    _std: tuple[float, ...]

    def set_up(self, backbone: Backbone, image_size: int, normalise: bool) -> None:
        """Set the attributes that all encoders have; E = `image_size`, G = `grid`."""
        self.image_size, self.grid = image_size, image_size // backbone.stride
        self.width = backbone.features or backbone.width
        self._decoder_width, self.normalise = backbone.width, normalise
        self._mean, self._std = backbone.mean, backbone.std

    @staticmethod
    def check_side(backbone: Backbone, image_size: int) -> None:
        """Raise a ValueError for a side E that doesn't suit the backbone."""
        multiple = backbone.side_multiple
        if image_size < multiple or image_size % multiple:
            raise ValueError(
                f"image_size: expected a positive multiple of {multiple}, got {image_size}"
            )

    def normalised(self, image: Tensor) -> Tensor:
        """Subtract the pretraining's mean and divide by its deviation, if asked: (B, 3, E, E)."""
        if not self.normalise:
            return image
        mean, std = (image.new_tensor(values).view(3, 1, 1) for values in (self._mean, self._std))
        return (image - mean) / std

    def new_neck(self) -> nn.Module:
        """A layer from embeddings to the decoders' width, (B, D, G, G) -> (B, width, G, G).

        Source: the neck of segment_anything/modeling/image_encoder.py, its first half.
        """
        if self.width == self._decoder_width:
            return nn.Identity()
        projection = nn.Conv2d(self.width, self._decoder_width, kernel_size=1, bias=False)
        return nn.Sequential(projection, LayerNorm2d(self._decoder_width))

    @abstractmethod
    def projections(self) -> Iterator[Projection]:
        """The layers that LoRA adapts, in the order of the blocks."""

    @abstractmethod
    def kind(self) -> str:
        """Name and sizes, for messages: "vit_b (768 wide, 12 deep)"."""

    @staticmethod
    @abstractmethod
    def kind_in(state: Mapping[str, Tensor]) -> str | None:
        """`kind` of the encoder in a weight file, by its tensors "image_encoder."; None: none."""

    def settle(self) -> None:
        """Rewrite the encoder for inference where that is faster; it can't be stored then."""

    def load_file(self, path: str | Path) -> list[str]:
        """Load the encoder's weights from a file of its own form; gives their names.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file that doesn't fit.
        """
        raise ValueError(f"{path}: expected a file of SAM's form for {self.kind()}")

    def fitted(self, name: str, value: Tensor, shape: torch.Size) -> Tensor | None:
        """A tensor of a weight file for another image side, brought to this one's.

        Args:
            name: of the tensor in the encoder.
            value: as the file has it.
            shape: that it has here.

        Returns:
            a tensor of `shape`; None: it depends on no side, so that the file doesn't fit.
        """
        return None


class Family(Protocol):
    """A class of image encoders, as the table of backbones names it."""

    def __call__(
        self,
        backbone: Backbone,
        image_size: int,
        checkpoint_blocks: bool = False,
        normalise: bool = False,
    ) -> ImageEncoder:
        """Build an encoder.

        Args:
            backbone: its line of the table.
            image_size: side E of the images in pixels.
            checkpoint_blocks: recompute blocks in the backward pass to save memory.
            normalise: as in `ImageEncoder`.

        Raises:
            ValueError: a side that doesn't suit the family.
        """

    def kind_in(self, state: Mapping[str, Tensor]) -> str | None:
        """As `ImageEncoder.kind_in`."""

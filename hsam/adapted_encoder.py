"""Building an image encoder for a model: its side, LoRA, freezing, pretrained weights."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from hsam.backbones import get_backbone
from hsam.encoders.base import ImageEncoder
from hsam.lora import add_lora, check_rank
from hsam.model import EncodedModel
from hsam.weights.sam_checkpoint import load_sam_checkpoint

Model = TypeVar("Model", bound=EncodedModel)


@dataclass(frozen=True)
class EncoderOptions:
    """What all builders of models with an image encoder take alike.

    Attributes:
        backbone: a name of `hsam.backbones()`.
        encoder_size: side E in pixels at which the encoder sees the images; None: the images' own.
        normalise: bring images into the value range of the encoder's pretraining; False: [0, 1],
            as in the published H-SAM code.
        train_encoder: train all weights of the encoder, not its LoRA alone; None: only for a
            backbone without published weights.
        checkpoint_blocks: recompute encoder blocks in the backward pass to save memory.
    """

    backbone: str = "vit_b"
    encoder_size: int | None = None
    normalise: bool = False
    train_encoder: bool | None = None
    checkpoint_blocks: bool = False

    def resolved(self) -> dict[str, Any]:
        """The values as a model's config holds them."""
        return asdict(self) | {"train_encoder": self._trained()}

    def _trained(self) -> bool:
        if self.train_encoder is None:
            return not get_backbone(self.backbone).pretrained
        return self.train_encoder

    def build(self, image_size: int, lora_rank: int = 0, lora_scale: float = 1.0) -> ImageEncoder:
        """Build the encoder.

        Args:
            image_size: side S of the images in pixels.
            lora_rank: rank of its LoRA; 0: none.
            lora_scale: factor of the LoRA's update.

        Raises:
            ValueError: an argument out of range.
        """
        line = get_backbone(self.backbone)
        side = image_size if self.encoder_size is None else self.encoder_size
        encoder = line.load_family()(line, side, self.checkpoint_blocks, self.normalise)
        encoder.requires_grad_(self._trained())
        widths = [projection.layer.in_features for projection in encoder.projections()]
        check_rank(lora_rank, min(widths))
        if lora_rank:
            add_lora(encoder, lora_rank, lora_scale)
        return encoder


def load_start(model: Model, sam_checkpoint: str | Path | None) -> Model:
    """Load pretrained weights into a model, if a file is given; returns the same model."""
    if sam_checkpoint is not None:
        load_sam_checkpoint(model, sam_checkpoint)
    return model

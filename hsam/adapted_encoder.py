"""Building SAM's image encoder: LoRA, freezing, SAM's weights."""

from pathlib import Path
from typing import TypeVar

from hsam.backbones import get_backbone
from hsam.encoder import ImageEncoder
from hsam.lora import add_lora, check_rank
from hsam.model import SegmentationModel
from hsam.weights.sam_checkpoint import load_sam_checkpoint

Model = TypeVar("Model", bound=SegmentationModel)


def build_encoder(
    backbone: str,
    image_size: int,
    lora_rank: int,
    lora_scale: float,
    train_encoder: bool | None,
    checkpoint_blocks: bool,
) -> tuple[ImageEncoder, bool]:
    """Build an image encoder with LoRA.

    Args:
        backbone, image_size, lora_rank, lora_scale, train_encoder, checkpoint_blocks: as in
            `hsam.build_hsam`.

    Returns:
        the encoder, and whether all of its weights are trained.

    Raises:
        ValueError: an argument out of range.
    """
    sizes = get_backbone(backbone)
    check_rank(lora_rank, sizes.embed_dim)
    train_encoder = not sizes.pretrained if train_encoder is None else train_encoder
    encoder = ImageEncoder(sizes, image_size, checkpoint_blocks)
    encoder.requires_grad_(train_encoder)
    if lora_rank:
        add_lora(encoder, lora_rank, lora_scale)
    return encoder, train_encoder


def load_start(model: Model, sam_checkpoint: str | Path | None) -> Model:
    """Load SAM's weights into a model, if a checkpoint is given; returns the same model."""
    if sam_checkpoint is not None:
        load_sam_checkpoint(model, sam_checkpoint)
    return model

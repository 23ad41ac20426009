"""From arguments to a model: the only place that knows which part goes where."""

from pathlib import Path
from typing import TypeVar

from hsam.backbones import get_backbone
from hsam.class_balance import ClassBalancedMaskAttention
from hsam.coarse_decoder import CoarseDecoder
from hsam.encoder import ImageEncoder
from hsam.fine_decoder import FineDecoder
from hsam.lora import add_lora, check_rank
from hsam.model import HSAM, SegmentationModel
from hsam.prompt import PromptEncoder
from hsam.two_way import CrossFirstTransformer, MaskedTransformer
from hsam.weights.sam_checkpoint import load_sam_checkpoint

Model = TypeVar("Model", bound=SegmentationModel)


def check_classes(num_classes: int) -> int:
    """The number of classes with background.

    Raises:
        ValueError: `num_classes` is no integer from 1.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes: expected an integer from 1, got {num_classes!r}")
    return num_classes + 1


def build_hsam(
    backbone: str = "vit_b",
    *,
    image_size: int = 512,
    num_classes: int = 8,
    lora_rank: int = 4,
    lora_scale: float = 1.0,
    sam_checkpoint: str | Path | None = None,
    mask_attention: bool = True,
    pixel_decoder: bool = True,
    cm_attention: bool = True,
    gate: str = "spatial",
    train_encoder: bool | None = None,
    checkpoint_blocks: bool = False,
) -> HSAM:
    """Build H-SAM, in training mode.

    Args:
        backbone: a name of `hsam.backbones()`.
        image_size: side S in pixels, a multiple of 16.
        num_classes: organs, without the background.
        lora_rank: rank of the encoder's update; 0 leaves it out.
        lora_scale: factor of the update.
        sam_checkpoint: SAM's weights; None leaves the start random.
        mask_attention, pixel_decoder, cm_attention: parts of stage 2 (paper table 11).
        gate: "spatial" as in the paper, "constant" as in the published H-SAM code.
        train_encoder: move the encoder's own weights as well; None: only where the backbone has
            no published weights.
        checkpoint_blocks: recompute encoder blocks in the backward pass to save memory.

    Raises:
        ValueError: an argument out of range, named with what was expected.

    Source: paper section 3.
    """
    sizes = get_backbone(backbone)
    classes = check_classes(num_classes)
    encoder, train_encoder = build_encoder(
        backbone, image_size, lora_rank, lora_scale, train_encoder, checkpoint_blocks
    )
    width, heads, mlp_dim = sizes.width, sizes.decoder_heads, 8 * sizes.width
    positions = (image_size // 16) ** 2
    attention = ClassBalancedMaskAttention(classes, positions, mlp_dim, gate)
    model = HSAM(
        encoder,
        PromptEncoder(width, image_size),
        CoarseDecoder(CrossFirstTransformer(width, heads, mlp_dim), width, classes),
        FineDecoder(
            MaskedTransformer(width, heads, mlp_dim),
            width,
            classes,
            attention if cm_attention else None,
            mask_attention,
            pixel_decoder,
        ),
        classes,
    )
    model.config = {
        "model": "hsam",
        "backbone": backbone,
        "image_size": image_size,
        "num_classes": num_classes,
        "lora_rank": lora_rank,
        "lora_scale": lora_scale,
        "mask_attention": mask_attention,
        "pixel_decoder": pixel_decoder,
        "cm_attention": cm_attention,
        "gate": gate,
        "train_encoder": train_encoder,
        "checkpoint_blocks": checkpoint_blocks,
    }
    return load_start(model, sam_checkpoint)


def build_encoder(
    backbone: str,
    image_size: int,
    lora_rank: int,
    lora_scale: float,
    train_encoder: bool | None,
    checkpoint_blocks: bool,
) -> tuple[ImageEncoder, bool]:
    """An encoder with LoRA, frozen or not, and whether its own weights are trained.

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
    """The same model, with SAM's weights where a checkpoint is given."""
    if sam_checkpoint is not None:
        load_sam_checkpoint(model, sam_checkpoint)
    return model

"""Builder of H-SAM: assembles the model from its arguments."""

from pathlib import Path

from hsam.adapted_encoder import build_encoder, load_start
from hsam.backbones import get_backbone
from hsam.class_balance import ClassBalancedMaskAttention
from hsam.coarse_decoder import CoarseDecoder
from hsam.fine_decoder import FineDecoder
from hsam.inputs import check_classes
from hsam.prompt import PromptEncoder
from hsam.two_stage import HSAM
from hsam.two_way import CrossFirstTransformer, MaskedTransformer


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
        lora_rank: rank of the LoRA in the encoder; 0: no LoRA.
        lora_scale: factor of the LoRA's update.
        sam_checkpoint: file of SAM's weights; None: random weights.
        mask_attention, pixel_decoder, cm_attention: parts of stage 2 (paper table 11).
        gate: CMAttn's gate, "spatial" as in the paper or "constant" as in the published H-SAM code.
        train_encoder: train all weights of the encoder, not its LoRA alone; None: only for a
            backbone without published weights.
        checkpoint_blocks: recompute encoder blocks in the backward pass to save memory.

    Raises:
        ValueError: an argument out of range.

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

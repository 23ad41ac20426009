"""Builder of H-SAM: assembles the model from its arguments."""

from pathlib import Path
from typing import Any

from hsam.adapted_encoder import EncoderOptions, load_start
from hsam.class_balance import ClassBalancedMaskAttention, gate_pooling
from hsam.coarse_decoder import CoarseDecoder, decoder_steps
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
    embedding_noise: float = 0.2,
    **encoder: Any,
) -> HSAM:
    """Build H-SAM, in training mode.

    Args:
        backbone: a name of `hsam.backbones()`, or "hf:FOLDER".
        image_size: side S in pixels; 4, 8 or 16 times that of the encoder's grid.
        num_classes: organs, without the background.
        lora_rank: rank of the LoRA in the encoder; 0: no LoRA.
        lora_scale: factor of the LoRA's update.
        sam_checkpoint: file of SAM's weights; None: random weights, or those in "hf:FOLDER".
        mask_attention, pixel_decoder, cm_attention: parts of stage 2 (paper table 11).
        gate: CMAttn's gate, "spatial" as in the paper or "constant" as in the published H-SAM code.
        embedding_noise: standard deviation of the noise on stage 2's image embedding in training,
            as a share of the embedding's range; 0.2 in the published H-SAM code.
        encoder: as in `hsam.adapted_encoder.EncoderOptions`.

    Raises:
        ValueError: an argument out of range.
        TypeError: an unknown argument.

    Source: paper section 3.
    """
    options, classes = EncoderOptions(backbone, **encoder), check_classes(num_classes)
    line = options.line
    image_encoder = options.build(image_size, lora_rank, lora_scale)
    width, heads, mlp_dim, grid = line.width, line.decoder_heads, 8 * line.width, image_encoder.grid
    steps = decoder_steps(image_size, grid)
    # grids as coarse as SAM's are left whole, as the published code has them
    pooling = 1 if steps == (2, 2) else gate_pooling(grid)
    attention = ClassBalancedMaskAttention(classes, grid, mlp_dim, gate, pooling=pooling)
    model = HSAM(
        image_encoder,
        PromptEncoder(width, image_size, grid),
        CoarseDecoder(CrossFirstTransformer(width, heads, mlp_dim), width, classes),
        FineDecoder(
            MaskedTransformer(width, heads, mlp_dim),
            width,
            classes,
            attention if cm_attention else None,
            mask_attention,
            pixel_decoder,
            steps,
        ),
        image_size,
        classes,
        embedding_noise,
    )
    model.config = {
        "model": "hsam",
        **options.resolved(),
        "image_size": image_size,
        "num_classes": num_classes,
        "lora_rank": lora_rank,
        "lora_scale": lora_scale,
        "mask_attention": mask_attention,
        "pixel_decoder": pixel_decoder,
        "cm_attention": cm_attention,
        "gate": gate,
        "embedding_noise": embedding_noise,
    }
    return load_start(model, options, sam_checkpoint)

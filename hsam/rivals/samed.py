"""SAMed: SAM with LoRA in the encoder and one mask token per class, one stage.

Source: Customized Segment Anything Model for Medical Image Segmentation, arXiv 2304.13785; it is
H-SAM without stage 2 and with SAM's own order of attention. Trainable parameters at ViT-B, 8
organs, rank 4: 4,773,760.
"""

from pathlib import Path

from hsam.adapted_encoder import build_encoder, load_start
from hsam.rivals.one_stage import OneStage, one_stage


def build_samed(
    backbone: str = "vit_b",
    *,
    image_size: int = 512,
    num_classes: int = 8,
    lora_rank: int = 4,
    lora_scale: float = 1.0,
    sam_checkpoint: str | Path | None = None,
    train_encoder: bool | None = None,
    checkpoint_blocks: bool = False,
) -> OneStage:
    """Build SAMed, in training mode; arguments and errors as in `hsam.build_hsam`."""
    encoder, train_encoder = build_encoder(
        backbone, image_size, lora_rank, lora_scale, train_encoder, checkpoint_blocks
    )
    model = one_stage(encoder, backbone, num_classes)
    model.config = {
        "model": "samed",
        "backbone": backbone,
        "image_size": image_size,
        "num_classes": num_classes,
        "lora_rank": lora_rank,
        "lora_scale": lora_scale,
        "train_encoder": train_encoder,
        "checkpoint_blocks": checkpoint_blocks,
    }
    return load_start(model, sam_checkpoint)

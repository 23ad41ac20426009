"""SAMed: SAM with LoRA in the encoder and one mask token per class, one stage.

Source: Customized Segment Anything Model for Medical Image Segmentation, arXiv 2304.13785; it is
H-SAM without stage 2 and with SAM's own order of attention. Trainable parameters at ViT-B, 8
organs, rank 4: 4,773,760.
"""

from pathlib import Path
from typing import Any

from hsam.adapted_encoder import EncoderOptions, load_start
from hsam.rivals.one_stage import OneStage, one_stage


def build_samed(
    backbone: str = "vit_b",
    *,
    image_size: int = 512,
    num_classes: int = 8,
    lora_rank: int = 4,
    lora_scale: float = 1.0,
    sam_checkpoint: str | Path | None = None,
    **encoder: Any,
) -> OneStage:
    """Build SAMed, in training mode; arguments and errors as in `hsam.build_hsam`."""
    options = EncoderOptions(backbone, **encoder)
    image_encoder = options.build(image_size, lora_rank, lora_scale)
    model = one_stage(image_encoder, options, image_size, num_classes)
    model.config = {
        "model": "samed",
        **options.resolved(),
        "image_size": image_size,
        "num_classes": num_classes,
        "lora_rank": lora_rank,
        "lora_scale": lora_scale,
    }
    return load_start(model, options, sam_checkpoint)

"""AutoSAM: a frozen encoder without any change, and a decoder with learned class queries.

Source: How to Efficiently Adapt Large Segmentation Model (SAM) to Medical Images, arXiv 2306.13731.
Trainable parameters at ViT-B, 8 organs: 4,626,304.
"""

from pathlib import Path
from typing import Any

from hsam.adapted_encoder import EncoderOptions, load_start
from hsam.rivals.one_stage import OneStage, one_stage


def build_autosam(
    backbone: str = "vit_b",
    *,
    image_size: int = 512,
    num_classes: int = 8,
    sam_checkpoint: str | Path | None = None,
    **encoder: Any,
) -> OneStage:
    """Build AutoSAM, in training mode; arguments and errors as in `hsam.build_hsam`."""
    options = EncoderOptions(backbone, **encoder)
    image_encoder = options.build(image_size)
    model = one_stage(image_encoder, options, image_size, num_classes)
    model.config = {
        "model": "autosam",
        **options.resolved(),
        "image_size": image_size,
        "num_classes": num_classes,
    }
    return load_start(model, options, sam_checkpoint)

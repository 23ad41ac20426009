"""AutoSAM: a frozen encoder without any change, and a decoder with learned class queries.

Source: How to Efficiently Adapt Large Segmentation Model (SAM) to Medical Images, arXiv 2306.13731.
Trainable parameters at ViT-B, 8 organs: 4,626,304.
"""

from pathlib import Path

from hsam.adapted_encoder import build_encoder, load_start
from hsam.rivals.one_stage import OneStage, one_stage


def build_autosam(
    backbone: str = "vit_b",
    *,
    image_size: int = 512,
    num_classes: int = 8,
    sam_checkpoint: str | Path | None = None,
    train_encoder: bool | None = None,
    checkpoint_blocks: bool = False,
) -> OneStage:
    """Build AutoSAM, in training mode; arguments and errors as in `hsam.build_hsam`."""
    encoder, train_encoder = build_encoder(
        backbone, image_size, 0, 1.0, train_encoder, checkpoint_blocks
    )
    model = one_stage(encoder, backbone, num_classes)
    model.config = {
        "model": "autosam",
        "backbone": backbone,
        "image_size": image_size,
        "num_classes": num_classes,
        "train_encoder": train_encoder,
        "checkpoint_blocks": checkpoint_blocks,
    }
    return load_start(model, sam_checkpoint)

"""From the parameters to a model of `hsam`."""

from typing import Any

import torch

from hsam.model import SegmentationModel
from hsam.registry import MODELS, build
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Train


def build_model(settings: Train, organs: int, seed: int) -> SegmentationModel:
    """The model that the parameters describe, its new weights drawn from the seed.

    Args:
        settings: the `train` block; a model is given what its builder takes of it.
        organs: classes without the background.
        seed: `base.seed`.

    Raises:
        UserError: a SAM file that doesn't fit the backbone.
    """
    torch.manual_seed(seed)
    try:
        return build(settings.model, num_classes=organs, **_arguments(settings))
    except (ValueError, FileNotFoundError) as error:
        raise UserError(f"train: {error}.") from None


def takes_sam(settings: Train) -> bool:
    """Whether the model starts from a SAM file."""
    return MODELS[settings.model].pretrained and settings.sam_checkpoint is not None


def _arguments(settings: Train) -> dict[str, Any]:
    values = {
        **settings.model_dump(exclude={"model"}),
        "checkpoint_blocks": settings.gradient_checkpointing,
    }
    taken = {"image_size", *MODELS[settings.model].takes}
    chosen = {name: value for name, value in values.items() if name in taken}
    return chosen | (settings.model_options or {})

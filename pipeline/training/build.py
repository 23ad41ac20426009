"""From the parameters to a model of `hsam`."""

import inspect
from typing import Any

import torch

import hsam
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Train


def build_model(settings: Train, organs: int, seed: int) -> hsam.SegmentationModel:
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
        return hsam.build(settings.model, num_classes=organs, **_arguments(settings))
    except (ValueError, FileNotFoundError) as error:
        raise UserError(f"train: {error}.") from None


def takes_sam(settings: Train) -> bool:
    """Whether the model starts from a SAM file."""
    return "sam_checkpoint" in _arguments(settings) and settings.sam_checkpoint is not None


def _arguments(settings: Train) -> dict[str, Any]:
    values = {
        **settings.model_dump(exclude={"model"}),
        "checkpoint_blocks": settings.gradient_checkpointing,
    }
    taken = inspect.signature(hsam.MODELS[settings.model]).parameters
    return {name: value for name, value in values.items() if name in taken}

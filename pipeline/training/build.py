"""Building the model that the parameters describe."""

from typing import Any

import torch

from hsam.model import SegmentationModel
from hsam.registry import MODELS, build
from pipeline.core import weight_files
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Train


def build_model(settings: Train, organs: int, seed: int) -> SegmentationModel:
    """Build the model, with weights that no file gives drawn from the seed.

    Args:
        settings: the `train` block, of which each model takes its own parameters.
        organs: number of classes, without the background.
        seed: of the training, `Params.seed_of("train")`.

    Raises:
        UserError: a SAM file that isn't there or doesn't fit the backbone.
    """
    torch.manual_seed(seed)
    try:
        return build(settings.model, num_classes=organs, **_arguments(settings))
    except (ValueError, FileNotFoundError) as error:
        raise UserError(f"train: {error}.") from None


def _arguments(settings: Train) -> dict[str, Any]:
    values = {
        **settings.model_dump(exclude={"model"}),
        "sam_checkpoint": weight_files.chosen(settings),
        "checkpoint_blocks": settings.gradient_checkpointing,
    }
    taken = {"image_size", *MODELS[settings.model].takes}
    chosen = {name: value for name, value in values.items() if name in taken}
    return chosen | (settings.model_options or {})

"""The state of a training, as its checkpoints hold it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from hsam.model import SegmentationModel
from pipeline.core.errors import UserError
from pipeline.training.history import History
from pipeline.training.step import Trainer

Weights = dict[str, Tensor]


@dataclass
class Progress:
    """The state of a training besides model and optimizer.

    Attributes:
        step: optimizer steps done.
        history: losses and validations.
        best: mean validation Dice and weights of the best epoch so far.
        stale: validations since the best one.
        seconds: wall time so far, over all calls.
    """

    step: int = 0
    history: History = field(default_factory=History)
    best: tuple[float, Weights] | None = None
    stale: int = 0
    seconds: float = 0.0


def state(trainer: Trainer, progress: Progress, micro_batch: int) -> dict[str, Any]:
    """What a checkpoint holds: everything that the next step depends on."""
    return {
        "step": progress.step,
        "model": weights(trainer.model),
        "optimizer": trainer.optimizer.optimizer.state_dict(),
        "scaler": trainer.fabric.strategy.precision.state_dict(),
        "average": None if trainer.average is None else trainer.average.values,
        "history": asdict(progress.history),
        "best": progress.best,
        "stale": progress.stale,
        "seconds": progress.seconds,
        "micro_batch": micro_batch,
    }


def resume(trainer: Trainer, saved: Mapping[str, Any]) -> Progress:
    """Put the state of a checkpoint into the trainer."""
    trainer.model.load_state_dict(saved["model"], strict=False)
    trainer.optimizer.optimizer.load_state_dict(saved["optimizer"])
    trainer.fabric.strategy.precision.load_state_dict(saved["scaler"])
    if trainer.average is not None:
        trainer.average.load(saved["average"])
    history = History(**saved["history"])
    seconds = saved.get("seconds", 0.0)  # version 0.1.0 didn't count them
    return Progress(saved["step"], history, saved["best"], saved["stale"], seconds)


def check_checkpoint(saved: Mapping[str, Any], model: SegmentationModel, folder: Path) -> None:
    """UserError for a checkpoint of a version that trained other weights of the model."""
    expected = len(model.trainable_parameters())
    found = sum(len(group["params"]) for group in saved["optimizer"]["param_groups"])
    if found != expected:
        raise UserError(
            f"{folder}: the checkpoint is of a version that trained {found} tensors of the model, "
            f"this one trains {expected}; remove it to begin anew, or go on with that version."
        )


def weights(model: SegmentationModel) -> Weights:
    """A copy of the parameters and buffers, on the CPU, without those of a frozen encoder."""
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    return {
        name: value.detach().cpu().clone()
        for name, value in model.state_dict().items()
        if not (name.startswith("image_encoder.") and name in frozen)
    }

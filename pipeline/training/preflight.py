"""Before the first step: the micro-batch that fits in memory, and a table of derived values.

Nothing here changes the training: weights and gradients stay as they are, and the random numbers of
a step don't depend on what was drawn before.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric

from hsam.model import SegmentationModel
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Train
from pipeline.training.batches import Batches
from pipeline.training.memory import free_bytes, step_bytes, validation_bytes
from pipeline.training.step import Loss

GIB = 2**30
VALIDATION_SLICES = 16  # largest number of slices per forward pass of a validation


class Passes(NamedTuple):
    """Forward passes that fit in memory.

    Attributes:
        slices: per device and pass.
        spare: bytes of this device that are left beside them.
    """

    slices: int
    spare: float


def passes(
    fabric: Fabric,
    model: SegmentationModel,
    settings: Train,
    most: int,
    *,
    begun: bool = False,
    validated: tuple[int, int] | None = None,
) -> Passes:
    """The size of a forward pass on each device.

    Args:
        fabric: launched.
        model: on any device; moved to fabric's.
        settings: the `train` block.
        most: upper bound, or the size of a training that goes on.
        begun: the training goes on; another size would end with other weights.
        validated: (rows, columns) of the largest slice of a validation, whose passes have to fit as
            well; None: there is none.

    Returns:
        of `settings.micro_batch` slices, or for "auto" the largest of most, most / 2, most / 4 ...
        that fits in the memory of every device.

    Raises:
        UserError: it doesn't fit, or for "auto" a single slice doesn't.
    """
    auto = settings.micro_batch == "auto" and not begun
    size = most if settings.micro_batch == "auto" else min(settings.micro_batch, most)
    model = model.to(fabric.device).train()
    loss = Loss(model, settings.model_copy(update={"compile": False}))
    step = step_bytes(fabric, loss)
    validation = None if validated is None else validation_bytes(fabric, model, validated)
    while True:
        free = free_bytes(fabric.device)
        if fabric.device.type == "cpu":
            free //= fabric.world_size  # which all have the same memory
        needs = [step(size)]
        if validation is not None:
            needs.append(validation(validation_slices(size)))
        fits: Any = fabric.all_reduce(torch.tensor(float(max(needs) <= free)), reduce_op="sum")
        if fits.item() >= fabric.world_size:
            return Passes(size, free - max(needs))
        if size == 1 or not auto:
            validating = needs[0] <= free < needs[-1]
            raise _refusal(settings, size, max(needs), free, fabric.device, begun, validating)
        size = -(-size // 2)


def validation_slices(size: int) -> int:
    """Slices per forward pass of a validation, given those of a training's pass."""
    return min(size, VALIDATION_SLICES)


def _refusal(
    settings: Train,
    size: int,
    needed: float,
    free: float,
    device: torch.device,
    begun: bool,
    validating: bool,
) -> UserError:
    """The error for passes of `size` slices that don't fit."""
    what = "a validation" if validating else "one pass"
    slices = validation_slices(size) if validating else size
    advice = "choose a smaller train.image_size" if size == 1 else "set it to auto or lower"
    if begun:
        less = "a smaller train.image_size" if size == 1 else "a lower number"
        advice = (
            f"the training began with passes of {size} and other ones would end with other "
            f"weights: free some and run the same command again, or begin anew with {less}"
        )
    if not validating:
        advice += ", or set train.gradient_checkpointing to true"
    return UserError(
        f"train.micro_batch: {slices} slices of {settings.image_size} px in {what} of "
        f"{settings.model} need {_gib(needed)}, {_gib(free)} are free on {device}; {advice}."
    )


def _gib(size: float) -> str:
    return "more memory than there is" if size == float("inf") else f"{size / GIB:.2f} GiB"


def derived(
    fabric: Fabric,
    model: SegmentationModel,
    settings: Train,
    batches: Batches,
    facts: Mapping[str, str],
) -> dict[str, str]:
    """Rows of a table for people: what follows from parameters, data and machine.

    Args:
        fabric: launched.
        model: the model to train.
        settings: the `train` block.
        batches: the batches of the training.
        facts: more rows, which come first.
    """
    cuda = fabric.device.type == "cuda"
    name = torch.cuda.get_device_name(fabric.device) if cuda else "CPU"
    threads = "" if cuda else f", {torch.get_num_threads()} threads"
    rows = {
        **facts,
        "device": f"{fabric.world_size} x {name}{threads}",
        "precision": str(fabric.strategy.precision.precision),
        "slices": f"{batches.slices:,}",
        "steps": f"{batches.total_steps:,}: {settings.epochs} epochs of {batches.steps_per_epoch}",
        "effective batch": f"{batches.batch_size} slices",
        "accumulation": f"{batches.passes_per_step} x {batches.micro_batch} slices or fewer "
        f"on each of {batches.devices}",
        "warm-up": f"{settings.warmup_iterations} steps",
        "image side": f"{settings.image_size} px",
    }
    for part, module in model.named_children():
        rows[f"parameters of {part}"] = _parameters(module)
    rows["parameters"] = _parameters(model)
    if batches.total_steps <= settings.warmup_iterations:
        rows["note"] = "the learning rate never reaches its full height: the warm-up is longer"
    return rows


def _parameters(module: torch.nn.Module) -> str:
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    trained = sum(number for number, moves in sizes if moves)
    return f"{trained:,} of {sum(number for number, _ in sizes):,} trained"

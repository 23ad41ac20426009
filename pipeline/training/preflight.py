"""Before the first step: the micro-batch that fits in memory, and a table of derived values.

Nothing here changes the training: weights and gradients stay as they are, and the random numbers of
a step don't depend on what was drawn before.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from lightning_fabric import Fabric
from torch import Tensor

from hsam.model import SegmentationModel
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Train
from pipeline.training.batches import Batches
from pipeline.training.step import Loss

GIB = 2**30
# memory of a pass over that of the tensors it keeps: temporary tensors and fragmentation
MARGIN = 1.25


def micro_batch(fabric: Fabric, model: SegmentationModel, settings: Train, most: int) -> int:
    """Slices per device and forward pass.

    Args:
        fabric: launched.
        model: on any device; moved to fabric's.
        settings: the `train` block.
        most: upper bound.

    Returns:
        `settings.micro_batch`, or for "auto" the largest of most, most / 2, most / 4 ... that fits
        in the memory of every device.

    Raises:
        UserError: it doesn't fit, or for "auto" a single slice doesn't.
    """
    auto = settings.micro_batch == "auto"
    size = most if settings.micro_batch == "auto" else min(settings.micro_batch, most)
    model = model.to(fabric.device).train()
    loss = Loss(model, settings.model_copy(update={"compile": False}))
    on_gpu = fabric.device.type == "cuda"
    measure = _needed_on_gpu if on_gpu else Estimate(fabric, loss)
    while True:
        free = free_bytes(fabric.device)
        if fabric.device.type == "cpu":
            free //= fabric.world_size  # which all have the same memory
        needed = measure(fabric, loss, size)
        fits: Any = fabric.all_reduce(torch.tensor(float(needed <= free)), reduce_op="sum")
        if fits.item() >= fabric.world_size:
            return size
        if size == 1 or not auto:
            raise UserError(
                f"train.micro_batch: {size} slices of {settings.image_size} px in one pass of "
                f"{settings.model} need {_gib(needed)}, {_gib(free)} are free on {fabric.device}; "
                + ("set it to auto or lower" if size > 1 else "choose a smaller train.image_size")
                + ", or set train.gradient_checkpointing to true."
            )
        size = -(-size // 2)


def free_bytes(device: torch.device) -> int:
    """Free memory of a device in bytes; on the CPU, of the machine or the container."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + idle
    free = psutil.virtual_memory().available
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        return min(free, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # no control groups, or no limit
        return free


def _needed_on_gpu(fabric: Fabric, loss: Loss, size: int) -> float:
    """Bytes of a forward and backward pass and the optimizer's state; infinite: out of memory."""
    device = fabric.device
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    try:
        with fabric.autocast():
            values = loss(*zero_batch(loss, size, device), 0.5, size)
        values[0].backward()
        return torch.cuda.max_memory_allocated(device) - before + _state_bytes(loss)
    except torch.OutOfMemoryError:
        return float("inf")
    finally:
        loss.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()


class Estimate:
    """Bytes that a pass needs on the CPU, estimated from the tensors that one slice keeps."""

    def __init__(self, fabric: Fabric, loss: Loss) -> None:
        parameters = {p.untyped_storage().data_ptr() for p in loss.parameters()}
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in parameters:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with hooks, fabric.autocast():
            values = loss(*zero_batch(loss, 1, fabric.device), 0.5, 1)
        del values
        self.slice_bytes = sum(kept.values())

    def __call__(self, fabric: Fabric, loss: Loss, size: int) -> float:
        return MARGIN * size * self.slice_bytes + _trained_bytes(loss) + _state_bytes(loss)


def zero_batch(loss: Loss, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images (size, 1, S, S) and labels (size, S, S) of zeros, as the loss takes them."""
    side = loss.image_size
    images = torch.zeros(size, 1, side, side, device=device)
    return images, torch.zeros(size, side, side, dtype=torch.long, device=device)


def _state_bytes(loss: Loss) -> int:
    """AdamW's two moments and the moving average, float32."""
    return 3 * _trained_bytes(loss)


def _trained_bytes(loss: Loss) -> int:
    """The trained weights, or their gradients, float32."""
    return 4 * sum(p.numel() for p in loss.parameters() if p.requires_grad)


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

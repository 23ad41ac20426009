"""Memory of a device: what is free, and what passes of a training and a validation need.

Measured on a GPU; on a CPU estimated from the tensors of one or two slices.
"""

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hsam.model import SegmentationModel
from pipeline.inference.volume import predict_volume
from pipeline.training.step import Loss

# memory of a pass over that of the tensors it keeps: temporary tensors and fragmentation
MARGIN = 1.25

Measure = Callable[[int], float]  # slices of a pass -> bytes


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


def step_bytes(fabric: Fabric, loss: Loss) -> Measure:
    """Bytes of a forward and backward pass, and of the optimizer's state."""
    if fabric.device.type == "cpu":
        return Estimate(fabric, loss)

    def step(size: int) -> None:
        try:
            with fabric.autocast():
                values = loss(*zero_batch(loss, size, fabric.device), 0.5, size)
            values[0].backward()
        finally:
            loss.zero_grad(set_to_none=True)

    return lambda size: _peak_on_gpu(fabric.device, step, size) + _state_bytes(loss)


def validation_bytes(fabric: Fabric, model: SegmentationModel, plane: tuple[int, int]) -> Measure:
    """Bytes of a validation's pass, beside which gradients and the optimizer's state lie."""

    def predict(slices: int) -> None:
        images = np.zeros((slices, *plane), np.float32)
        predict_volume(model, images, batch_size=slices, device=str(fabric.device))

    held = _trained_bytes(model) + _state_bytes(model)
    if fabric.device.type == "cuda":
        return lambda slices: _peak_on_gpu(fabric.device, predict, slices) + held
    with Peak() as one:
        predict(1)
    with Peak() as two:
        predict(2)
    each = two.bytes - one.bytes  # the rest doesn't depend on the number of slices
    return lambda slices: MARGIN * (one.bytes + (slices - 1) * each) + held


def _peak_on_gpu(device: torch.device, work: Callable[[int], None], size: int) -> float:
    """Bytes that `work(size)` takes at its height; infinite: out of memory."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    try:
        work(size)
        return torch.cuda.max_memory_allocated(device) - before
    except torch.OutOfMemoryError:
        return float("inf")
    finally:
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
        self.held = _trained_bytes(loss) + _state_bytes(loss)

    def __call__(self, size: int) -> float:
        return MARGIN * size * self.slice_bytes + self.held


class Peak(TorchDispatchMode):
    """Counts the bytes of the tensors that are made inside the block.

    Attributes:
        bytes: those that lived at the same time, at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self._living: dict[int, int] = {}  # address of a storage to its bytes

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if (address := storage.data_ptr()) not in self._living:
                    self._living[address] = storage.nbytes()
                    weakref.finalize(storage, self._living.pop, address, None)
        self.bytes = max(self.bytes, sum(self._living.values()))
        return made


def zero_batch(loss: Loss, size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images (size, 1, S, S) or embeddings, and labels (size, S, S), as the loss takes them."""
    side = loss.image_size
    images = torch.zeros(size, *(loss.embedding or (1, side, side)), device=device)
    return images, torch.zeros(size, side, side, dtype=torch.long, device=device)


def _state_bytes(module: nn.Module) -> int:
    """AdamW's two moments and the moving average, float32."""
    return 3 * _trained_bytes(module)


def _trained_bytes(module: nn.Module) -> int:
    """The trained weights, or their gradients, float32."""
    return 4 * sum(p.numel() for p in module.parameters() if p.requires_grad)

"""What a training cost: wall time, devices, memory."""

import sys
import time
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def cost(fabric: "Fabric", seconds: float) -> dict[str, Any]:
    """The content of cost.json.

    Args:
        fabric: of the training.
        seconds: wall time, over all calls.

    Returns:
        `date` of the training's end, UTC; `seconds`; `device`, a GPU's name or "CPU"; `devices`,
        how many; `peak_memory_mib` of the first one: GPU memory that PyTorch allocated, or the
        process's resident memory, in this call. Null where the system doesn't tell.
    """
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(seconds, 3),
        "device": device_name(fabric.device),
        "devices": fabric.world_size,
        "peak_memory_mib": _peak(fabric.device),
    }


def device_name(device: torch.device | str) -> str:
    """A GPU's name, or CPU."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) >> 20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, but bytes on macOS
    return peak >> 20 if sys.platform == "darwin" else peak >> 10

"""The machine's cores, memory and GPUs as its system tells them, without PyTorch."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from pipeline.core import cpus

DRIVER = Path("/proc/driver/nvidia/gpus")  # a folder a card, written by NVIDIA's driver on Linux
SHARED_MEMORY = Path("/dev/shm")  # where batches lie that data workers have read, on Linux
GIB = 2**30
SECONDS = 5.0  # for nvidia-smi, which wakes a driver that sleeps


def cpu() -> dict[str, Any]:
    """The CPU: `device`, `cores` that this process may use, `memory_gib` of the machine or None."""
    return {"device": "cpu", "cores": cpus.usable(), "memory_gib": _memory_gib()}


def gpus(driver: Path = DRIVER) -> list[dict[str, Any]]:
    """NVIDIA's cards in bus order, each with `device`, `name` and `uuid`.

    From the driver's files where it has any, which takes no time; elsewhere nvidia-smi is asked.

    Args:
        driver: the folder of the driver's files.
    """
    if driver.is_dir():
        found = [_information(path) for path in sorted(driver.glob("*/information"))]
    else:
        found = _asked()
    return [{"device": f"cuda:{index}"} | card for index, card in enumerate(found)]


def hidden() -> str | None:
    """What CUDA_VISIBLE_DEVICES says, which bounds the cards that are used; None: it isn't set."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def free_shared_memory() -> int | None:
    """Free bytes for batches of workers; None where the system sets no bound of its own."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return None


def _information(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.partition(":") for line in lines)
    facts = {key.strip(): value.strip() for key, _, value in pairs}
    return {"name": facts.get("Model", "unknown"), "uuid": facts.get("GPU UUID", "")}


def _asked() -> list[dict[str, str]]:
    command = ["nvidia-smi", "--query-gpu=name,uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.rpartition(",") for line in done.stdout.splitlines() if line.strip())
    return [{"name": name.strip(), "uuid": uuid.strip()} for name, _, uuid in rows]


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1)
    except (AttributeError, OSError, ValueError):  # not a system of the Unix family
        return None

"""What a stage cost: wall time, devices, memory, and the day."""

import math
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core import files

if TYPE_CHECKING:
    import torch

NAME = "cost.json"  # among a stage's outputs


@dataclass(frozen=True)
class Cost:
    """The content of cost.json.

    Attributes:
        date: of the end, UTC; None in files of earlier versions.
        seconds: wall time, over all calls.
        device: a GPU's name, or "CPU".
        devices: how many.
        peak_memory_mib: of the first one: GPU memory that PyTorch allocated, or the process's
            resident memory, in the last call; None where the system didn't tell.
    """

    date: str | None
    seconds: float
    device: str
    devices: int
    peak_memory_mib: int | None

    @classmethod
    def of(cls, seconds: float, device: "torch.device | str", devices: int = 1) -> "Cost":
        """Of what ends now in this process.

        Args:
            seconds: wall time.
            device: where it ran.
            devices: how many.
        """
        today = time.strftime("%Y-%m-%d", time.gmtime())
        return cls(today, round(seconds, 3), device_name(device), devices, _peak(str(device)))

    @classmethod
    def parse(cls, record: Any) -> "Cost":
        """From the content of cost.json.

        Raises:
            ValueError: time or device isn't there.
        """
        try:
            peak = record.get("peak_memory_mib")
            return cls(
                date=record.get("date"),
                seconds=float(record["seconds"]),
                device=str(record["device"]),
                devices=int(record.get("devices", 1)),
                peak_memory_mib=None if peak is None else int(peak),
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ValueError("expected seconds, a number, and device") from None

    @classmethod
    def in_turn(cls, parts: "Iterable[Cost]") -> "Cost":
        """Of parts on one kind of device, as if one had followed the other.

        Args:
            parts: at least one.
        """
        parts = list(parts)
        peaks = [part.peak_memory_mib for part in parts if part.peak_memory_mib is not None]
        return cls(
            date=max((part.date for part in parts if part.date is not None), default=None),
            seconds=round(math.fsum(part.device_seconds for part in parts), 3),
            device=parts[0].device,
            devices=1,
            peak_memory_mib=max(peaks, default=None),
        )

    @classmethod
    def read(cls, folder: Path, name: str = NAME) -> "Cost | None":
        """Of the stage whose outputs lie in a folder; None where nothing readable is recorded."""
        try:
            return cls.parse(files.read_json(folder / name))
        except (OSError, ValueError):
            return None

    def write(self, folder: Path, name: str = NAME) -> None:
        """Put it among a stage's outputs."""
        files.write_json(folder / name, asdict(self))

    @property
    def device_seconds(self) -> float:
        """Time of all devices."""
        return self.seconds * self.devices

    @property
    def where(self) -> str:
        """The devices, for people."""
        return self.device if self.devices == 1 else f"{self.devices} × {self.device}"


def device_name(device: "torch.device | str") -> str:
    """A GPU's name, or CPU."""
    if str(device).partition(":")[0] != "cuda":
        return "CPU"
    import torch  # which knows the GPU's name, and takes a second

    return torch.cuda.get_device_name(device)


def _peak(device: str) -> int | None:
    if device.partition(":")[0] == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device) >> 20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, but bytes on macOS
    return peak >> 20 if sys.platform == "darwin" else peak >> 10

"""Scans of several channels, such as T2 and ADC: where they are stored, and their axes.

A volume of one channel has no axis for it. Of C channels, volumes are (x, y, z, C) in source order,
slices (slices, C, rows, columns), and what holds for one channel, an intensity rule or the values
that become 0 and 1, is a tuple of C.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


@dataclass(frozen=True)
class ChannelFile:
    """Where a channel is stored.

    Attributes:
        path: of the volume file.
        place: of the channel along the fourth axis, from 0; None: the file holds it alone.
    """

    path: Path
    place: int | None = None

    def __str__(self) -> str:
        return f"{self.path}" if self.place is None else f"{self.path}, channel {self.place}"


def each(array: NDArray[Any]) -> list[NDArray[Any]]:
    """The channels of a volume (x, y, z) or (x, y, z, C), views (x, y, z) of it."""
    return [array] if array.ndim == 3 else list(np.moveaxis(array, -1, 0))


def first(images: NDArray[Any]) -> NDArray[Any]:
    """The channel that pictures show: (..., rows, columns) of (slices, C, rows, columns).

    Slices of one channel (slices, rows, columns) are as they are.
    """
    return images if images.ndim == 3 else images[:, 0]


def many(value: T | tuple[T, ...]) -> tuple[T, ...]:
    """What holds for each channel, of what holds for one or is a tuple of it."""
    return value if isinstance(value, tuple) else (value,)


def joined(values: Sequence[T]) -> T | tuple[T, ...]:
    """The opposite of `many`: one value without a tuple around it."""
    return values[0] if len(values) == 1 else tuple(values)


def recorded(preparation: Mapping[str, Any] | None) -> dict[str, int]:
    """Names of a run's channels to their numbers in its data set; empty: one without a name.

    Args:
        preparation: as manifests and models record it.
    """
    found = (preparation or {}).get("channels") or []
    return {str(channel["name"]): int(channel["number"]) for channel in found}


def example(preparation: Mapping[str, Any] | None) -> str:
    """What stands for a scan of a run in the command `hsam predict`."""
    names = list(recorded(preparation))
    if len(names) < 2:
        return "scan.nii.gz"
    files = [re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_") or "channel" for name in names]
    return f"{' '.join(f'{name}.nii.gz' for name in files)} --case scan"


def pictured(preparation: Mapping[str, Any] | None) -> str | None:
    """The name of the channel that pictures show; None where there is one."""
    names = list(recorded(preparation))
    return names[0] if len(names) > 1 else None

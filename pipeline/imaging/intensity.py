"""Intensity normalisation of one volume: from source units (CT: HU) to [0, 1].

The same for training data (stage prepare) and for new scans (`hsam predict`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pipeline.core.params.blocks import Intensity, Percentile, Window
from pipeline.imaging.channels import each, joined

# of one channel, or of each of several
Rules = Window | Percentile | tuple[Window | Percentile, ...]
Edges = float | tuple[float, ...]


def rule(values: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Rules:
    """The rules recorded in a manifest or model.json; ValueError when the record holds none."""
    several: list[Any] = values if isinstance(values, list) else [values]
    found: list[Window | Percentile] = [
        TypeAdapter(Intensity).validate_python(dict(one)) for one in several
    ]
    return joined(found)


def record(rules: Rules) -> dict[str, Any] | list[dict[str, Any]]:
    """Rules as records hold them: of one channel its rule, of several a list."""
    dumps = [one.model_dump() for one in each_rule(rules)]
    return dumps if isinstance(rules, tuple) else dumps[0]


def each_rule(rules: Rules) -> tuple[Window | Percentile, ...]:
    """The rule of each channel."""
    return rules if isinstance(rules, tuple) else (rules,)


def bounds(array: NDArray[Any], chosen: Window | Percentile) -> tuple[float, float]:
    """(low, high): the intensities in source units that become 0 and 1, exact in float32.

    Args:
        array: all voxels of the volume, finite, in any axis order.
        chosen: a window in source units, or percentiles of these voxels.
    """
    edges = (chosen.low, chosen.high)
    if chosen.kind == "percentile":
        edges = np.percentile(array, edges)
    low, high = (float(np.float32(edge)) for edge in edges)
    return low, high


def all_bounds(array: NDArray[Any], rules: Rules) -> tuple[Edges, Edges]:
    """`bounds` of a volume (x, y, z), or of each channel of one (x, y, z, C)."""
    found = [bounds(one, of) for one, of in zip(each(array), each_rule(rules), strict=True)]
    lows, highs = zip(*found, strict=True)
    return joined(lows), joined(highs)


def clip(images: NDArray[Any], low: Edges, high: Edges) -> NDArray[np.float32]:
    """Images (Z, H, W) or (Z, C, H, W) clipped to [low, high], as float32; slice by slice to save
    memory.
    """
    clipped = np.empty(images.shape, np.float32)
    for index, image in enumerate(images):
        clipped[index] = np.clip(image, _edge(low), _edge(high))
    return clipped


def to_unit(images: NDArray[Any], low: Edges, high: Edges) -> NDArray[np.float32]:
    """Images (..., H, W) clipped to [low, high], or (..., C, H, W) to C of them -> float32 in
    [0, 1].
    """
    scaled = np.subtract(images, np.float32(_edge(low)), dtype=np.float32)
    scaled /= np.float32(_edge(high) - _edge(low))
    # rounding may exceed 1 in the last bit
    return np.clip(scaled, 0, 1, out=scaled)


def _edge(edge: Edges) -> Any:
    """A number, or those of C channels (C, 1, 1)."""
    return np.array(edge)[:, None, None] if isinstance(edge, tuple) else edge

"""Intensity normalisation of one volume: from source units (CT: HU) to [0, 1].

The same for training data (stage prepare) and for new scans (`hsam predict`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pipeline.core.params.blocks import Intensity, Percentile, Window


def rule(values: Mapping[str, Any]) -> Window | Percentile:
    """The rule recorded in a manifest or model.json; ValueError when the record is no rule."""
    return TypeAdapter(Intensity).validate_python(dict(values))


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


def clip(images: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Images (Z, H, W) clipped to [low, high], as float32; slice by slice to save memory."""
    clipped = np.empty(images.shape, np.float32)
    for index, image in enumerate(images):
        clipped[index] = np.clip(image, low, high)
    return clipped


def to_unit(images: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Images of any shape, clipped to [low, high] -> float32 in [0, 1]."""
    scaled = np.subtract(images, np.float32(low), dtype=np.float32)
    scaled /= np.float32(high - low)
    # rounding may exceed 1 in the last bit
    return np.clip(scaled, 0, 1, out=scaled)

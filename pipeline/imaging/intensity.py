"""From source units to [0, 1]: the rule of a data set, on one volume.

What prepare does to a volume before training and predict to a new scan.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pipeline.core.params.blocks import Intensity, Percentile, Window


def rule(values: Mapping[str, Any]) -> Window | Percentile:
    """The rule that a manifest or a model's record holds; ValueError when it is none."""
    return TypeAdapter(Intensity).validate_python(dict(values))


def bounds(array: NDArray[Any], chosen: Window | Percentile) -> tuple[float, float]:
    """The intensities, in source units, that become 0 and 1; exact in float32.

    Args:
        array: the voxels of the whole volume, finite.
        chosen: a window in source units, or percentiles of these voxels.
    """
    edges = (chosen.low, chosen.high)
    if chosen.kind == "percentile":
        edges = np.percentile(array, edges)
    low, high = (float(np.float32(edge)) for edge in edges)
    return low, high


def clip(images: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Images of the same shape within [low, high], one slice at a time to save memory."""
    clipped = np.empty(images.shape, np.float32)
    for index, image in enumerate(images):
        clipped[index] = np.clip(image, low, high)
    return clipped


def to_unit(images: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Images within [low, high] -> [0, 1]."""
    scaled = np.subtract(images, np.float32(low), dtype=np.float32)
    scaled /= np.float32(high - low)
    # rounding may pass 1 by the last bit
    return np.clip(scaled, 0, 1, out=scaled)

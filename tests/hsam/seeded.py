"""Deterministic tensors: the same values on every machine."""

import zlib
from pathlib import Path

import numpy as np
import torch

FIXTURES = Path(__file__).parent / "fixtures"


def seeded(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A float32 tensor that depends on a parameter's name and shape alone."""
    rng = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode())))
    z = rng.standard_normal(shape, dtype=np.float32)
    if len(shape) >= 2:
        fan_in = 2500 if len(shape) == 4 and "pos_embed" in name else int(np.prod(shape[1:]))
        z = z / np.sqrt(fan_in)
        if name.startswith("w_b_"):
            z = z * 0.5
    elif name.endswith("weight"):
        z = 1 + 0.1 * z
    else:
        z = 0.05 * z
    return torch.from_numpy(np.ascontiguousarray(z, dtype=np.float32))


def seeded_image(key: int, size: int) -> torch.Tensor:
    """A (1, 3, size, size) image in [0, 1), one grey channel repeated three times."""
    rng = np.random.Generator(np.random.Philox(key=key))
    return torch.from_numpy(rng.random((1, 1, size, size), dtype=np.float32)).repeat(1, 3, 1, 1)

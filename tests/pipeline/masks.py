"""Masks that the tests of scores share, and surfaces by brute force."""

import numpy as np
from scipy import ndimage

SPACING = (3.0, 0.7, 1.1)
# hand-made masks of (4, 6, 8) voxels
EMPTY = np.zeros((4, 6, 8), bool)
BOX = EMPTY.copy()
BOX[1:3, 2:4, 2:4] = True
SHIFTED = np.roll(BOX, 1, axis=2)


def blob(seed: int, shape=(11, 30, 26), level=0.9) -> np.ndarray:
    """A smooth, organ-shaped mask that may touch the border."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = ndimage.gaussian_filter(noise, (1, 3, 3))
    return smooth > level * smooth.std()


def brute_surface(mask: np.ndarray) -> np.ndarray:
    """Voxels with one of their six neighbours outside the mask or the array."""
    padded = np.pad(mask, 1)
    inside = np.ones_like(mask)
    for axis in range(mask.ndim):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)[(slice(1, -1),) * mask.ndim]
    return mask & ~inside

"""Distances between the surfaces of two masks, exact: between the centres of surface voxels.

A surface voxel is one that shares a face with a voxel outside the mask; outside the array is
outside. Source: MedPy, `medpy.metric.binary` with connectivity 1; MONAI's metrics take the same.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

Points = NDArray[np.float64]


def surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask's surface voxels; any number of axes."""
    return mask & ~ndimage.binary_erosion(mask)


def surface_points(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[Points, Points]:
    """Indices (points, axes) of the two masks' surface voxels.

    Raises:
        ValueError: a mask without a voxel.
    """
    points = tuple(np.argwhere(surface(mask)).astype(np.float64) for mask in (a, b))
    if not (len(points[0]) and len(points[1])):
        raise ValueError("a, b: expected masks with a voxel in each, got an empty one")
    return points


def point_distances(a: Points, b: Points, spacing: Sequence[float]) -> tuple[Points, Points]:
    """From each point of `a` the distance to the nearest of `b`, and the other way.

    Args:
        a, b: (points, axes), at least one each.
        spacing: voxel size along each axis; the unit of the result.
    """
    a, b = (points * np.asarray(spacing, np.float64) for points in (a, b))
    # unbalanced trees are built in a fraction of the time and answer as fast on a grid
    trees = [cKDTree(points, balanced_tree=False, compact_nodes=False) for points in (a, b)]
    return trees[1].query(a)[0], trees[0].query(b)[0]

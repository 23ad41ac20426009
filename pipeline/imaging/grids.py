"""Whether two volumes lie on the same grid."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.geometry import Geometry

# two grids are the same if no voxel lies further off than this share of the smallest voxel side
TOLERANCE = 0.1


def grid_difference(expected: Geometry, found: Geometry) -> str | None:
    """How two grids differ, in words: shape, spacing, directions, origin.

    Returns:
        A phrase for an error message; None where the grids are the same within TOLERANCE.
    """
    if expected.shape != found.shape:
        return f"shape {_by(found.shape)} instead of {_by(expected.shape)}"
    distance = largest_distance(expected, found)
    allowed = TOLERANCE * min(expected.spacing)
    if distance <= allowed:
        return None
    parts = []
    if not np.allclose(expected.spacing, found.spacing, rtol=1e-4):
        parts.append(f"spacing {_by(found.spacing)} mm instead of {_by(expected.spacing)} mm")
    axes = [g.affine[:3, :3] / g.spacing for g in (expected, found)]
    if expected.orientation != found.orientation:
        parts.append(f"orientation {found.orientation} instead of {expected.orientation}")
    if angles := _angles(*axes):
        parts.append(angles)
    shift = float(np.linalg.norm(expected.affine[:3, 3] - found.affine[:3, 3]))
    if shift > allowed:
        parts.append(f"its origin {shift:.4g} mm away")
    worst = f"voxels up to {distance:.4g} mm from their place (allowed: {allowed:.3g} mm)"
    return ", ".join([*parts, worst])


def largest_distance(first: Geometry, second: Geometry) -> float:
    """The largest distance, mm, between the places of one voxel index in two grids of one shape.

    Two affine maps differ most at a corner of the volume, so only the corners are compared.
    """
    ends = [(0, side - 1) for side in first.shape]
    corners = np.stack([*np.meshgrid(*ends, indexing="ij"), np.ones((2, 2, 2))], -1).reshape(8, 4)
    return float(np.linalg.norm(corners @ (first.affine - second.affine).T, axis=1).max())


def _angles(expected: NDArray[np.float64], found: NDArray[np.float64]) -> str | None:
    """Angles between the axes of two grids, the columns of (3, 3); None where they are equal."""
    cosines = np.clip((expected * found).sum(0), -1, 1)
    degrees = np.degrees(np.arccos(cosines))
    if degrees.max() < 0.01:
        return None
    turned = (f"{axis} by {angle:.3g}°" for axis, angle in zip("xyz", degrees, strict=True))
    return f"axes that point elsewhere ({', '.join(turned)})"


def _by(sides: Iterable[float]) -> str:
    """Sides of a box, such as "512 x 512 x 90"."""
    return " x ".join(f"{side:.5g}" for side in sides)

"""Measures one organ in one case: mask sizes, surface distances and the scores made of them.

What an empty mask counts is not decided here, but in `conventions`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from pipeline.scoring.dice import NAN
from pipeline.scoring.scores import SCORES, MaskPair, MaskSizes, Score

# the values that an organ has in a label map
Labels = tuple[int, ...]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Measures(MaskSizes):
    """One organ of one case, before any convention.

    Attributes:
        truth_voxels, predicted_voxels, shared_voxels, voxel_ml: see `MaskSizes`.
        diagonal_voxels, diagonal_mm: length of the whole volume's diagonal, edge to edge.
        sides_mm: shortest and longest side of a voxel, of the axes along which there are several.
        scores: by the names in `scores.SCORES`; NaN where undefined: overlaps and distances unless
            both masks have a voxel, any score that would divide by zero.
    """

    diagonal_voxels: float
    diagonal_mm: float
    sides_mm: tuple[float, float]
    scores: dict[str, float]


def measure(
    truth: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    spacing: Sequence[float],
    volume: Sequence[int] | None = None,
) -> Measures:
    """Measure one organ.

    Args:
        truth, prediction: masks of one shape, any number of axes.
        spacing: voxel size along each axis, mm.
        volume: shape of the whole volume, voxels, where the masks are cut out of it; None: theirs.

    Raises:
        ValueError: masks of different shapes, or a spacing of another length.
    """
    _check(truth, prediction, spacing)
    sizes = MaskSizes(
        truth_voxels=int(np.count_nonzero(truth)),
        predicted_voxels=int(np.count_nonzero(prediction)),
        shared_voxels=int(np.count_nonzero(truth & prediction)),
        voxel_ml=float(np.prod(spacing)) / 1000,
    )
    voxels, mm = _surface_distances(truth, prediction, spacing)
    pair = MaskPair(**asdict(sizes), voxels=voxels, mm=mm)
    extent = np.asarray(truth.shape if volume is None else volume, np.float64)
    return Measures(
        **asdict(sizes),
        diagonal_voxels=float(np.linalg.norm(extent)),
        diagonal_mm=float(np.linalg.norm(extent * spacing)),
        sides_mm=_sides(extent, spacing),
        scores={name: _value(score, pair) for name, score in SCORES.items()},
    )


def measure_organs(
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    organs: Mapping[str, tuple[Labels, Labels]],
    spacing: Sequence[float],
) -> dict[str, Measures]:
    """Measure several organs of one label volume, each cut out by its bounding box for speed.

    Args:
        truth, prediction: integer labels of one shape, usually (slice, row, column).
        organs: name to its labels, each >= 1, in the truth and in the prediction.
        spacing: voxel size along each axis, mm.

    Returns:
        Organ to what was measured, as `measure` gives it on masks of the whole volume.

    Raises:
        ValueError: volumes of different shapes, or a spacing of another length.
    """
    _check(truth, prediction, spacing)
    volumes = truth, prediction
    # of each volume the boxes of labels 1, 2, ... to its largest
    boxes = [ndimage.find_objects(volume) for volume in volumes]
    result = {}
    for name, labels in organs.items():
        organ_boxes = [
            of_labels[value - 1]
            for of_labels, values in zip(boxes, labels, strict=True)
            for value in values
            if value <= len(of_labels)
        ]
        box = _join(organ_boxes, truth.ndim)
        true, predicted = (
            _mask(volume[box], values) for volume, values in zip(volumes, labels, strict=True)
        )
        result[name] = measure(true, predicted, spacing, truth.shape)
    return result


def _mask(labels: NDArray[np.integer], values: Labels) -> NDArray[np.bool_]:
    """Where the labels are one of the values; much faster than `np.isin` for a few values."""
    first, *others = values
    mask = labels == first
    for value in others:
        mask |= labels == value
    return mask


def _sides(extent: NDArray[np.float64], spacing: Sequence[float]) -> tuple[float, float]:
    """Shortest and longest side of a voxel; an axis of one voxel has no distances along it."""
    sides = np.asarray(spacing, np.float64)
    several = sides[extent > 1] if (extent > 1).any() else sides
    return float(several.min()), float(several.max())


def _value(score: Score, pair: MaskPair) -> float:
    """The score of a pair, NaN where it is undefined."""
    if score.kind != "size" and not (pair.truth_voxels and pair.predicted_voxels):
        return NAN
    try:
        return float(score.compute(pair))
    except ZeroDivisionError:
        return NAN


def _surface_distances(
    truth: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[Points, Points]:
    """Distances of both directions, pooled, in voxels and in mm; none where a mask is empty."""
    if not (truth.any() and prediction.any()):
        return np.empty(0), np.empty(0)
    points = surface_points(truth, prediction)
    voxels, mm = (
        np.concatenate(point_distances(*points, unit)) for unit in ((1.0,) * truth.ndim, spacing)
    )
    return voxels, mm


def _check(truth: NDArray, prediction: NDArray, spacing: Sequence[float]) -> None:
    if truth.shape != prediction.shape:
        raise ValueError(
            f"prediction: expected the truth's shape {truth.shape}, got {prediction.shape}"
        )
    if len(spacing) != truth.ndim:
        raise ValueError(f"spacing: expected {truth.ndim} values, got {len(spacing)}")


def _join(boxes: Iterable[tuple[slice, ...] | None], axes: int) -> tuple[slice, ...]:
    """The smallest box around several boxes, None being an absent label; empty if all are."""
    present = [box for box in boxes if box is not None]
    if not present:
        return (slice(0, 0),) * axes
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*present, strict=True)
    )


def surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask's voxels that share a face with one outside it, or with the array's border."""
    return mask & ~ndimage.binary_erosion(mask)


def surface_points(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> tuple[Points, Points]:
    """Indices of the two masks' surface voxels, (surface voxels, axes) each.

    Args:
        a, b: masks of one shape, any number of axes.

    Raises:
        ValueError: a mask without a voxel.
    """
    of_a, of_b = (np.argwhere(surface(mask)).astype(np.float64) for mask in (a, b))
    if not (len(of_a) and len(of_b)):
        raise ValueError("a, b: expected masks with a voxel in each, got an empty one")
    return of_a, of_b


def point_distances(a: Points, b: Points, spacing: Sequence[float]) -> tuple[Points, Points]:
    """From each point of `a` the distance to the nearest of `b`, and the other way.

    Args:
        a, b: indices (points, axes), at least one point each.
        spacing: voxel size along each axis, in the unit of the result.

    Returns:
        (points of a,) and (points of b,).
    """
    a, b = (points * np.asarray(spacing, np.float64) for points in (a, b))
    # unbalanced trees are built in a fraction of the time and answer as fast on a grid
    trees = [cKDTree(points, balanced_tree=False, compact_nodes=False) for points in (a, b)]
    return trees[1].query(a)[0], trees[0].query(b)[0]

"""How well a predicted label volume matches the true one, organ by organ.

`measure` takes one organ's masks and knows no convention; a convention then says what an organ
counts that is empty on one side or both (docs/evaluation.md), so that several can be applied to
one measurement. Distances are exact: between the centres of surface voxels, by a k-d tree.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

CONVENTIONS = ("paper", "strict")
NAN = math.nan


@dataclass(frozen=True)
class Measures:
    """One organ of one case, as measured.

    Attributes:
        truth_voxels, predicted_voxels: sizes of the two masks.
        shared_voxels: size of their intersection.
        hd95_voxels, hd95_mm: 95th percentile of the surface distances, >= 0, in voxels and in mm;
            NaN unless both masks have a voxel.
        diagonal_voxels, diagonal_mm: the whole volume's diagonal.
    """

    truth_voxels: int
    predicted_voxels: int
    shared_voxels: int
    hd95_voxels: float
    hd95_mm: float
    diagonal_voxels: float
    diagonal_mm: float


@dataclass(frozen=True)
class Score:
    """What one organ of one case counts under a convention; NaN: left out of the means.

    Attributes:
        dice: in [0, 1].
        hd95_voxels, hd95_mm: >= 0.
    """

    dice: float
    hd95_voxels: float
    hd95_mm: float


def dice(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> float:
    """2 |truth and prediction| / (|truth| + |prediction|) of two masks of one shape, in [0, 1].

    NaN when both are empty.
    """
    sizes = np.count_nonzero(truth) + np.count_nonzero(prediction)
    return 2 * np.count_nonzero(truth & prediction) / sizes if sizes else NAN


def surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask's voxels that share a face with a voxel outside it; outside the array is outside.

    Any number of axes. Source: MedPy, `medpy.metric.binary` with connectivity 1.
    """
    return mask & ~ndimage.binary_erosion(mask)


def surface_distances(
    a: NDArray[np.bool_], b: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """From every surface voxel of `a` the distance to the nearest of `b`, and the other way.

    Args:
        a, b: masks of one shape, any number of axes.
        spacing: voxel size along each axis; the unit of the result.

    Raises:
        ValueError: a mask without a voxel.
    """
    points = [np.argwhere(surface(mask)) * np.asarray(spacing, np.float64) for mask in (a, b)]
    if not (len(points[0]) and len(points[1])):
        raise ValueError("a, b: expected masks with a voxel in each, got an empty one")
    # unbalanced trees are built in a fraction of the time and answer as fast on a grid
    trees = [cKDTree(item, balanced_tree=False, compact_nodes=False) for item in points]
    return trees[1].query(points[0])[0], trees[0].query(points[1])[0]


def hd95(a: NDArray[np.bool_], b: NDArray[np.bool_], spacing: Sequence[float]) -> float:
    """95th percentile of both directions' surface distances, pooled, in the unit of `spacing`.

    Raises:
        ValueError: a mask without a voxel.

    Source: MedPy, `medpy.metric.binary.hd95`.
    """
    return float(np.percentile(np.concatenate(surface_distances(a, b, spacing)), 95))


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
        volume: shape of the whole volume where the masks are a part cut out of it.

    Raises:
        ValueError: masks of different shapes, or a spacing of another length.
    """
    _check(truth, prediction, spacing)
    sizes = np.count_nonzero(truth), np.count_nonzero(prediction)
    voxel = (1.0,) * truth.ndim
    voxels, mm = (hd95(truth, prediction, unit) if all(sizes) else NAN for unit in (voxel, spacing))
    extent = np.asarray(truth.shape if volume is None else volume, np.float64)
    return Measures(
        truth_voxels=int(sizes[0]),
        predicted_voxels=int(sizes[1]),
        shared_voxels=int(np.count_nonzero(truth & prediction)),
        hd95_voxels=voxels,
        hd95_mm=mm,
        diagonal_voxels=float(np.linalg.norm(extent)),
        diagonal_mm=float(np.linalg.norm(extent * spacing)),
    )


def measure_labels(
    truth: NDArray[np.uint8],
    prediction: NDArray[np.uint8],
    labels: Iterable[int],
    spacing: Sequence[float],
) -> dict[int, Measures]:
    """Measure several organs of one label volume.

    Args:
        truth, prediction: integer labels of one shape, usually (slice, row, column).
        labels: which to measure, each >= 1.
        spacing: voxel size along each axis, mm.

    Raises:
        ValueError: volumes of different shapes, or a spacing of another length.
    """
    _check(truth, prediction, spacing)
    boxes = [ndimage.find_objects(volume) for volume in (truth, prediction)]
    result = {}
    for label in labels:
        box = _join([found[label - 1] for found in boxes if label <= len(found)], truth.ndim)
        result[label] = measure(truth[box] == label, prediction[box] == label, spacing, truth.shape)
    return result


def _check(truth: NDArray, prediction: NDArray, spacing: Sequence[float]) -> None:
    if truth.shape != prediction.shape:
        raise ValueError(
            f"prediction: expected the truth's shape {truth.shape}, got {prediction.shape}"
        )
    if len(spacing) != truth.ndim:
        raise ValueError(f"spacing: expected {truth.ndim} values, got {len(spacing)}")


def _join(boxes: Iterable[tuple[slice, ...] | None], axes: int) -> tuple[slice, ...]:
    """The smallest box around all that are given; an empty one when none is."""
    known = [box for box in boxes if box is not None]
    if not known:
        return (slice(0, 0),) * axes
    return tuple(
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*known, strict=True)
    )


def apply_convention(measures: Measures, convention: str) -> Score:
    """The score of one organ in one case under a convention; where both masks have a voxel all
    conventions agree.

    paper: nothing predicted counts Dice 0 and HD95 0, whether the organ is there or not;
        predicted but not there counts Dice 1 and HD95 0. Source: TransUNet, SAMed and the
        published H-SAM code.
    strict: not there and not predicted is left out; predicted but not there counts Dice 0 and its
        HD95 is left out; there but not predicted counts Dice 0 and the volume's diagonal.

    Raises:
        ValueError: unknown convention.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: expected one of {CONVENTIONS}, got {convention!r}")
    there, predicted = measures.truth_voxels > 0, measures.predicted_voxels > 0
    if there and predicted:
        sizes = measures.truth_voxels + measures.predicted_voxels
        return Score(2 * measures.shared_voxels / sizes, measures.hd95_voxels, measures.hd95_mm)
    if convention == "paper":
        return Score(float(predicted), 0.0, 0.0)
    if there:
        return Score(0.0, measures.diagonal_voxels, measures.diagonal_mm)
    return Score(0.0 if predicted else NAN, NAN, NAN)


def mean(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN when there is none."""
    kept = [value for value in values if not math.isnan(value)]
    return math.fsum(kept) / len(kept) if kept else NAN


def spread(values: Iterable[float]) -> float:
    """Sample standard deviation (n - 1) of the values that are not NaN; NaN below two."""
    kept = [value for value in values if not math.isnan(value)]
    return float(np.std(kept, ddof=1)) if len(kept) > 1 else NAN

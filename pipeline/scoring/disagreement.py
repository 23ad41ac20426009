"""Where the two stages of a model disagree: the slices that a reader should look at first.

The measure needs no truth. For an organ on a slice it is 1 - Dice of the coarse and the fine
stage's masks there: 0 where they are equal, 1 where they share no pixel.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

TWO_STAGES = ("coarse", "fine")  # of a model whose stages can disagree


@dataclass(frozen=True)
class Disagreement:
    """Two stages' masks of one organ on one slice.

    Attributes:
        slice: index from 0 along the first axis (feet to head in canonical order).
        organ: its name.
        disagreement: 1 - Dice of the two masks, in [0, 1].
        differing_mm2: area that is in one mask only.
    """

    slice: int
    organ: str
    disagreement: float
    differing_mm2: float


def stage_disagreement(
    coarse: NDArray[np.integer],
    fine: NDArray[np.integer],
    names: Sequence[str],
    pixel_mm2: float,
) -> list[Disagreement]:
    """Every organ and slice on which the two stages differ, worst first.

    Of equal disagreements the one with the larger differing area comes first.

    Args:
        coarse, fine: labels (slices, rows, columns) of the two stages; label k is `names[k - 1]`.
        names: organs.
        pixel_mm2: area of a pixel of a slice.

    Raises:
        ValueError: volumes of different shapes, or not three-dimensional.
    """
    if coarse.shape != fine.shape or coarse.ndim != 3:
        raise ValueError(
            "coarse, fine: expected two volumes of one shape (slices, rows, columns), got "
            f"{coarse.shape} and {fine.shape}"
        )
    found = []
    for index, (one, other) in enumerate(zip(coarse, fine, strict=True)):
        sizes, shared = overlaps(one, other, len(names))
        for name, size, both in zip(names, sizes, shared, strict=True):
            if size > 2 * both:
                differing = int(size - 2 * both)
                share = differing / int(size)
                found.append(Disagreement(index, name, share, differing * pixel_mm2))
    return sorted(found, key=_order)


def overlaps(
    one: NDArray[np.integer], other: NDArray[np.integer], organs: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of two label arrays of one shape, for labels 1 to `organs`: the sum of the two masks' sizes,
    and the size of what they share."""
    length = organs + 1
    of_one, of_other = (np.bincount(labels.ravel(), minlength=length) for labels in (one, other))
    sizes = of_one + of_other
    shared = np.bincount(one[one == other], minlength=length)
    return sizes[1:length], shared[1:length]


def review_rows(case: str, found: Iterable[Disagreement]) -> list[dict[str, Any]]:
    """Rows of a review list: case, slice, organ, disagreement, differing_mm2."""
    return [
        {
            "case": case,
            "slice": item.slice,
            "organ": item.organ,
            "disagreement": item.disagreement,
            "differing_mm2": item.differing_mm2,
        }
        for item in found
    ]


def rows_with_truth(
    case: str,
    stages: tuple[NDArray[np.integer], NDArray[np.integer]],
    truth: NDArray[np.integer],
    prediction: NDArray[np.integer],
    names: Sequence[str],
    pixel_mm2: float,
) -> list[dict[str, Any]]:
    """Rows of a review list with the true Dice, worst first: every organ and slice that either
    stage, the truth or the prediction shows, so also those on which the stages agree.

    Args:
        case: the case's id.
        stages: labels (slices, rows, columns) of the coarse and the fine stage.
        truth, prediction: labels of the same shape; `prediction` is what is scored.
        names, pixel_mm2: as for `stage_disagreement`.

    Returns:
        As `review_rows`, and `dice` of prediction and truth on the slice, None where neither has
        the organ.
    """
    differing = {
        (item.slice, item.organ): item for item in stage_disagreement(*stages, names, pixel_mm2)
    }
    rows = []
    for index in range(len(truth)):
        shown, _ = overlaps(stages[0][index], stages[1][index], len(names))
        sizes, shared = overlaps(truth[index], prediction[index], len(names))
        for name, seen, size, both in zip(names, shown, sizes, shared, strict=True):
            if seen or size:
                item = differing.get((index, name), Disagreement(index, name, 0.0, 0.0))
                dice = 2 * int(both) / int(size) if size else None
                rows.append(review_rows(case, [item])[0] | {"dice": dice})
    return worst_first(rows)


def worst_first(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of several cases in one order: by disagreement, then by differing area."""
    return sorted(
        rows,
        key=lambda row: (
            -row["disagreement"],
            -row["differing_mm2"],
            row["case"],
            row["slice"],
            row["organ"],
        ),
    )


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, in [-1, 1]; None below three pairs or when one side is
    constant."""
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    return float(stats.spearmanr(first, second).statistic)


def _order(item: Disagreement) -> tuple[float, float, int, str]:
    return (-item.disagreement, -item.differing_mm2, item.slice, item.organ)

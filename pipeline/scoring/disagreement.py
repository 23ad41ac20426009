"""Where the coarse and the fine stage of a model disagree: slices to look at first.

The disagreement on an organ in a slice is 1 - Dice of the two stages' masks: 0 where they are
equal, 1 where they share no pixel. It needs no truth.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    for index in range(len(coarse)):
        size_sums, shared = overlaps(coarse[index], fine[index], len(names))
        for name, size_sum, both in zip(names, size_sums, shared, strict=True):
            differing = int(size_sum - 2 * both)
            if differing:
                share = differing / int(size_sum)
                found.append(Disagreement(index, name, share, differing * pixel_mm2))
    return sorted(found, key=_order)


def overlaps(
    first: NDArray[np.integer], second: NDArray[np.integer], organs: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Mask sizes of each organ in two label arrays.

    Args:
        first, second: labels of one shape.
        organs: how many labels to count, from 1.

    Returns:
        The sum of the two masks' sizes and the size of their intersection, pixels, (organs,) each.
    """
    length = organs + 1
    sizes = [np.bincount(labels.ravel(), minlength=length) for labels in (first, second)]
    shared = np.bincount(first[first == second], minlength=length)
    return (sizes[0] + sizes[1])[1:length], shared[1:length]


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
    """Rows of a review list with the true Dice, worst disagreement first.

    There is a row for every slice and organ that either stage, the truth or the prediction shows,
    also where the stages agree.

    Args:
        case: the case's id.
        stages: labels (slices, rows, columns) of the coarse and the fine stage.
        truth, prediction: labels of the same shape; `prediction` is the stage that is scored.
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
        in_stages, _ = overlaps(stages[0][index], stages[1][index], len(names))
        size_sums, shared = overlaps(truth[index], prediction[index], len(names))
        for name, stage_pixels, size_sum, both in zip(
            names, in_stages, size_sums, shared, strict=True
        ):
            if stage_pixels or size_sum:
                item = differing.get((index, name), Disagreement(index, name, 0.0, 0.0))
                dice = 2 * int(both) / int(size_sum) if size_sum else None
                rows.append(review_rows(case, [item])[0] | {"dice": dice})
    return worst_first(rows)


def worst_first(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of several cases, the largest disagreement first, then the largest differing area."""
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
    """Spearman's rank correlation of pairs, in [-1, 1].

    None below three pairs, or where all values of one side are equal.
    """
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    from scipy import stats  # takes longer to import than a scan to predict; prediction needs none

    return float(stats.spearmanr(first, second).statistic)


def _order(item: Disagreement) -> tuple[float, float, int, str]:
    return (-item.disagreement, -item.differing_mm2, item.slice, item.organ)

"""How far two label arrays, such as a model's two stages, differ organ by organ."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TWO_STAGES = ("coarse", "fine")  # of a model whose stages can disagree


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


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation of pairs, in [-1, 1].

    None below three pairs, or where all values of one side are equal.
    """
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    from scipy import stats  # takes longer to import than a scan to predict; prediction needs none

    return float(stats.spearmanr(first, second).statistic)

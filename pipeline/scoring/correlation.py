"""Rank correlation of pairs of numbers."""

from collections.abc import Sequence


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation of pairs, in [-1, 1].

    None below three pairs, or where all values of one side are equal.
    """
    if len(first) < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    from scipy import stats  # takes longer to import than a scan to predict; prediction needs none

    return float(stats.spearmanr(first, second).statistic)

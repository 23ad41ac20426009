"""Tests of paired differences, and the correction for several of them at once."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

SIGNIFICANT = 0.05  # p at which papers of the field call a difference shown
STARS = (0.001, 0.01, SIGNIFICANT)  # p below each of them has three, two and one


def signed_rank(differences: NDArray[np.float64]) -> float:
    """p of Wilcoxon's two-sided signed-rank test.

    Exact up to 50 cases without ties; differences of 0 are left out, as Wilcoxon did.

    Args:
        differences: (cases,); NaN is left out.

    Returns:
        In [0, 1]; 1 when nothing differs, NaN for no case.
    """
    defined = differences[~np.isnan(differences)]
    if not defined.size:
        return math.nan
    return float(stats.wilcoxon(defined).pvalue) if defined.any() else 1.0


def stars(p: float | None) -> str:
    """One star for p < 0.05, two for p < 0.01, three for p < 0.001; "" otherwise."""
    return "" if p is None else "*" * sum(p < bound for bound in STARS)


def smallest_p(cases: int) -> float:
    """The least p that the signed-rank test can give; NaN for no case.

    With n cases there are 2^n ways to give signs to the ranks, and two of them are the extremes.
    """
    return min(1.0, 2.0 ** (1 - cases)) if cases else math.nan


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p values for as many tests; NaN stays and counts for none."""
    ascending = sorted((value, index) for index, value in enumerate(p) if not math.isnan(value))
    corrected, highest = [math.nan] * len(p), 0.0
    for rank, (value, index) in enumerate(ascending):
        highest = max(highest, min(1.0, value * (len(ascending) - rank)))
        corrected[index] = highest
    return corrected

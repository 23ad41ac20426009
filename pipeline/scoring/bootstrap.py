"""Means over test cases with confidence intervals.

Intervals are percentile bootstraps over cases (docs/evaluation.md). The resamples are seeded: the
same scores give the same interval. NaN stands for a score that is left out.
"""

import math
import warnings
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

SEED, RESAMPLES = 0, 10_000
FEWEST = 6  # cases; the interval of fewer is little but their smallest and largest value
LEVEL = 95  # percent of the resampled means within the interval
BLOCK = 500  # resamples at a time, so that many cases need little memory


def mean_intervals(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Means over cases with the bounds of their 95% bootstrap interval.

    A case is drawn with all its organs and scores. A resample without any value of a score is left
    out of that score's interval.

    Args:
        values: (cases, organs, scores).

    Returns:
        mean, low and high, each (organs + 1, scores), the last row for the mean over organs. The
        mean is NaN where no case has a value, the bounds where fewer than FEWEST have.
    """
    cases, organs, scores = values.shape
    flat = values.reshape(cases, -1)
    defined = ~np.isnan(flat)
    filled = np.where(defined, flat, 0.0)
    means = _with_organ_mean(_means(np.ones((1, cases)), filled, defined), organs, scores)[0]
    resampled_means = np.concatenate(
        [
            _with_organ_mean(_means(draws, filled, defined), organs, scores)
            for draws in _resamples(cases)
        ]
    )
    low, high = (
        _nanquantile(resampled_means, share) for share in ((100 - LEVEL) / 200, (100 + LEVEL) / 200)
    )
    by_organ = defined.reshape(cases, organs, scores)
    counted = np.concatenate([by_organ.sum(0), by_organ.any(1).sum(0)[None]])
    too_few = counted < FEWEST
    low[too_few], high[too_few] = math.nan, math.nan
    return means, low, high


def nanmean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """`np.nanmean` without its warning; NaN where all values are NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=axis)


def _resamples(cases: int) -> Iterator[NDArray[np.float64]]:
    """How often each case is drawn, (BLOCK, cases) at a time; the same in every call."""
    random = np.random.default_rng(SEED)
    shares = np.full(cases, 1 / cases)
    for _ in range(RESAMPLES // BLOCK):
        yield random.multinomial(cases, shares, size=BLOCK).astype(np.float64)


def _means(
    draws: NDArray[np.float64], filled: NDArray[np.float64], defined: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Means of each column over the drawn cases, NaN where no drawn case has a value.

    Args:
        draws: how often each case is drawn, (resamples, cases).
        filled: (cases, columns), 0 where there is no value.
        defined: where there is one, (cases, columns).

    Returns:
        (resamples, columns).
    """
    with np.errstate(invalid="ignore"):
        return (draws @ filled) / (draws @ defined)


def _with_organ_mean(means: NDArray[np.float64], organs: int, scores: int) -> NDArray[np.float64]:
    """(resamples, organs * scores) -> (resamples, organs + 1, scores), last the organs' mean."""
    means = means.reshape(-1, organs, scores)
    return np.concatenate([means, nanmean(means, 1)[:, None]], axis=1)


def _nanquantile(samples: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Quantile along the first axis over what is not NaN; NaN where all is."""
    columns = samples.reshape(len(samples), -1).T
    values = (column[~np.isnan(column)] for column in columns)
    result = [np.quantile(column, share) if column.size else math.nan for column in values]
    return np.array(result).reshape(samples.shape[1:])

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
    cases = len(values)
    means = resampled_means(values, np.ones((1, cases)))[0]
    low, high = bounds(np.concatenate([resampled_means(values, d) for d in resamples(cases)]))
    counted = cases_counted(values)
    too_few = counted < FEWEST
    low[too_few], high[too_few] = math.nan, math.nan
    return means, low, high


def resampled_means(values: NDArray[np.float64], draws: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over drawn cases, NaN where no drawn case has a value.

    Args:
        values: (cases, organs, scores).
        draws: how often each case is drawn, (resamples, cases).

    Returns:
        (resamples, organs + 1, scores), the last row for the mean over organs.
    """
    cases, organs, scores = values.shape
    flat = values.reshape(cases, -1)
    defined = ~np.isnan(flat)
    with np.errstate(invalid="ignore"):
        means = (draws @ np.where(defined, flat, 0.0)) / (draws @ defined)
    means = means.reshape(-1, organs, scores)
    return np.concatenate([means, nanmean(means, 1)[:, None]], axis=1)


def bounds(samples: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Low and high end of the 95% percentile interval.

    Args:
        samples: (resamples, ...); NaN is left out.

    Returns:
        low and high, each (...); NaN where all samples are.
    """
    shares = ((100 - LEVEL) / 200, (100 + LEVEL) / 200)
    columns = samples.reshape(len(samples), -1).T
    values = [column[~np.isnan(column)] for column in columns]
    found = [np.quantile(v, shares) if v.size else (math.nan, math.nan) for v in values]
    low, high = np.array(found).T
    return low.reshape(samples.shape[1:]), high.reshape(samples.shape[1:])


def cases_counted(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many cases have a value: (cases, organs, scores) -> (organs + 1, scores)."""
    defined = ~np.isnan(values)
    return np.concatenate([defined.sum(0), defined.any(1).sum(0)[None]])


def nanmean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """`np.nanmean` without its warning; NaN where all values are NaN."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=axis)


def resamples(cases: int) -> Iterator[NDArray[np.float64]]:
    """How often each case is drawn, (BLOCK, cases) at a time; the same in every call."""
    random = np.random.default_rng(SEED)
    shares = np.full(cases, 1 / cases)
    for _ in range(RESAMPLES // BLOCK):
        yield random.multinomial(cases, shares, size=BLOCK).astype(np.float64)

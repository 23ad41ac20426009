"""Dice of two masks, and means that leave out what is undefined."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

NAN = math.nan


def dice(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> float:
    """2 |truth and prediction| / (|truth| + |prediction|) of two masks of one shape, in [0, 1].

    NaN when both are empty.
    """
    sizes = np.count_nonzero(truth) + np.count_nonzero(prediction)
    return 2 * np.count_nonzero(truth & prediction) / sizes if sizes else NAN


def mean(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN when there is none."""
    kept = [value for value in values if not math.isnan(value)]
    return math.fsum(kept) / len(kept) if kept else NAN


def spread(values: Iterable[float]) -> float:
    """Sample standard deviation (n - 1) of the values that are not NaN; NaN below two."""
    kept = [value for value in values if not math.isnan(value)]
    return float(np.std(kept, ddof=1)) if len(kept) > 1 else NAN

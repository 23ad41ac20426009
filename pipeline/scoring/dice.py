"""Dice of two masks, and statistics that leave out NaN, an undefined score."""

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
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else NAN


def spread(values: Iterable[float]) -> float:
    """Sample standard deviation (n - 1) of the values that are not NaN; NaN below two."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.std(defined, ddof=1)) if len(defined) > 1 else NAN


def none_if_nan(value: float) -> float | None:
    """For JSON and tables, which have no NaN."""
    return None if math.isnan(value) else float(value)

"""The values in a label volume: which there are, and how messages show them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def distinct(array: NDArray[Any]) -> NDArray[Any]:
    """Every value once, sorted, NaN last; the array may have any shape."""
    # pandas' unique hashes; NumPy's sorts, which takes many seconds on a whole CT
    return np.sort(pd.unique(array.ravel("K")))


def fractional(values: NDArray[Any]) -> NDArray[Any]:
    """Those of the values that are no whole numbers: fractions, NaN and infinity."""
    return values[~np.isfinite(values) | (values != np.rint(values))]


def shown(values: Iterable[Any], most: int = 8) -> str:
    """The first values as a list for messages, each with as many digits as tell it from others."""
    values = list(values)
    count = f", ... ({len(values)} in all)" if len(values) > most else ""
    return ", ".join(map(_digits, values[:most])) + count


def _digits(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return np.format_float_positional(value, trim="-")
    return str(value)

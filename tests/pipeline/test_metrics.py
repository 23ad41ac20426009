import math

import numpy as np
import pytest

from pipeline import metrics


def test_dice():
    a, b = np.zeros((2, 8), bool)
    a[:4], b[3:5] = True, True
    assert metrics.dice(a, b) == pytest.approx(2 / 6)
    assert metrics.dice(a, ~a) == 0
    assert math.isnan(metrics.dice(a & b & ~a, b & ~b))


def test_mean_and_spread_leave_out_what_is_nan():
    assert metrics.mean([1, math.nan, 2]) == 1.5
    assert math.isnan(metrics.mean([math.nan]))
    assert metrics.spread([1, 3, math.nan]) == pytest.approx(math.sqrt(2))
    assert math.isnan(metrics.spread([1, math.nan]))

import math

import numpy as np
import pytest

from pipeline.scoring import dice


def test_dice():
    a, b = np.zeros((2, 8), bool)
    a[:4], b[3:5] = True, True
    assert dice.dice(a, b) == pytest.approx(2 / 6)
    assert dice.dice(a, ~a) == 0
    assert math.isnan(dice.dice(a & b & ~a, b & ~b))


def test_mean_and_spread_leave_out_what_is_nan():
    assert dice.mean([1, math.nan, 2]) == 1.5
    assert math.isnan(dice.mean([math.nan]))
    assert dice.spread([1, 3, math.nan]) == pytest.approx(math.sqrt(2))
    assert math.isnan(dice.spread([1, math.nan]))

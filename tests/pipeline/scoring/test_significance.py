import math

import numpy as np
import pytest
from scipy import stats

from pipeline.scoring import significance


def test_holm():
    # by hand: 0.01 * 4, 0.02 * 3, max(0.03 * 2, 0.06), max(0.5, ...)
    found = significance.holm([0.03, 0.01, math.nan, 0.5, 0.02])
    expected = [0.06, 0.04, math.nan, 0.5, 0.06]
    assert found == pytest.approx(expected, nan_ok=True)
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0]


def test_signed_rank():
    values = np.random.default_rng(0).normal(0.3, 1, 12)
    assert significance.signed_rank(values) == stats.wilcoxon(values).pvalue
    assert significance.signed_rank(np.append(values, math.nan)) == stats.wilcoxon(values).pvalue
    assert significance.signed_rank(np.zeros(4)) == 1
    assert math.isnan(significance.signed_rank(np.array([math.nan])))


@pytest.mark.parametrize("cases", range(1, 9))
def test_the_smallest_p_is_that_of_differences_of_one_sign(cases):
    differences = np.arange(1.0, cases + 1)
    assert significance.smallest_p(cases) == pytest.approx(significance.signed_rank(differences))

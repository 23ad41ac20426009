import numpy as np
import pytest
from scipy import stats

from pipeline.scoring.correlation import rank_correlation


def test_rank_correlation():
    first, second = np.random.default_rng(2).random((2, 9)).round(1)
    # Spearman's is Pearson's of the ranks, ties sharing the mean rank
    ranks = [stats.rankdata(values) for values in (first, second)]
    expected = np.corrcoef(*ranks)[0, 1]
    assert rank_correlation(first, second) == pytest.approx(expected)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 2], [2, 1]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None

import math

import numpy as np
import pytest

from pipeline.scoring.bootstrap import FEWEST, mean_intervals


def values(cases: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.7, 0.1, (cases, 2, 3))


def test_intervals_are_seeded_and_hold_the_mean():
    found = mean_intervals(values(12))
    for one, other in zip(found, mean_intervals(values(12)), strict=True):
        np.testing.assert_array_equal(one, other)
    mean, low, high = found
    np.testing.assert_allclose(mean[:2], values(12).mean(0))
    np.testing.assert_allclose(mean[2], values(12).mean((0, 1)))
    assert ((low < mean) & (mean < high)).all()


def test_intervals_have_the_width_of_the_means_error():
    mean, low, high = mean_intervals(values(200))
    error = values(200).std(0) / math.sqrt(200)
    np.testing.assert_allclose((high - low)[:2], 2 * 1.96 * error, rtol=0.08)


def test_intervals_cover_the_true_mean_about_as_often_as_they_say():
    held = [
        (mean_intervals(values(30, seed))[1] < 0.7) & (mean_intervals(values(30, seed))[2] > 0.7)
        for seed in range(60)
    ]
    assert 0.85 < np.mean([item[:2] for item in held]) < 0.99


def test_what_is_left_out_changes_nothing():
    some = values(12)
    more = np.concatenate([some, np.full((1, 2, 3), math.nan)])
    np.testing.assert_allclose(mean_intervals(more)[0], mean_intervals(some)[0])
    none = some.copy()
    none[:, 1] = math.nan
    mean, low, high = mean_intervals(none)
    assert np.isnan(mean[1]).all() and np.isnan(low[1]).all()
    np.testing.assert_allclose(mean[2], mean[0])
    np.testing.assert_allclose(high[2], high[0])


@pytest.mark.parametrize("cases", [1, 3, FEWEST - 1])
def test_few_cases_have_no_interval(cases):
    mean, low, high = mean_intervals(values(cases))
    assert np.isfinite(mean).all() and np.isnan(low).all() and np.isnan(high).all()
    assert np.isfinite(mean_intervals(values(FEWEST))[1]).all()


def test_an_organ_that_few_cases_have_is_alone_without_an_interval():
    some = values(12)
    some[3:, 1] = math.nan
    _, low, _ = mean_intervals(some)
    assert np.isnan(low[1]).all() and np.isfinite(low[[0, 2]]).all()

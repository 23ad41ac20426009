"""Means, spreads and intervals whose values are known."""

import math

import numpy as np
import pytest

from pipeline.scoring.bootstrap import mean_intervals
from pipeline.studies import plan
from pipeline.studies.intervals import Scores, estimate, sample_means, stack
from pipeline.studies.outcomes import outcomes
from tests.pipeline.studies.outputs import RESULTS, finish

CASES = tuple("abcdefgh")


def scores(runs: dict[tuple[int, int], float | np.ndarray], cases=CASES) -> Scores:
    """One organ and score; a number is the score of every case."""
    values = [np.broadcast_to(value, len(cases)) for value in runs.values()]
    return Scores(tuple(runs), cases, np.array(values, float)[:, :, None, None])


def test_spread_over_seeds_and_draws_is_apart():
    found = estimate(scores({(1, 1): 0.4, (1, 2): 0.6, (2, 1): 0.5, (2, 2): 0.9}))
    assert found.mean[0, 0] == pytest.approx(0.6)
    # squares about the draws' means: 0.02 and 0.08, a degree of freedom each
    assert found.sd_seeds[0, 0] == pytest.approx(math.sqrt(0.05))
    assert found.sd_draws[0, 0] == pytest.approx(math.sqrt(0.02))


def test_one_seed_or_one_draw_has_no_spread():
    found = estimate(scores({(1, 1): 0.4}))
    assert math.isnan(found.sd_seeds[0, 0]) and math.isnan(found.sd_draws[0, 0])


def test_seeds_that_agree_leave_the_interval_over_cases():
    by_case = np.linspace(0.2, 0.9, len(CASES)) ** 2
    found = estimate(scores(dict.fromkeys([(1, 1), (1, 2), (2, 1)], by_case)))
    mean, low, high = mean_intervals(by_case[:, None, None])
    for name, expected in (("mean", mean), ("low", low), ("high", high)):
        np.testing.assert_allclose(getattr(found, name), expected)


def test_cases_that_agree_leave_the_interval_over_seeds():
    """Of two seeds one is taken at a time, so that half of the resamples are either."""
    found = estimate(scores({(1, 1): 0.4, (1, 2): 0.6}))
    assert (found.low[0, 0], found.high[0, 0]) == pytest.approx((0.4, 0.6))


def test_resamples_have_the_variance_of_a_mean_of_seeds():
    seeds = [0.1, 0.5, 0.3]
    samples = np.concatenate(list(sample_means(scores({(1, n): s for n, s in enumerate(seeds)}))))
    assert samples[:, 0, 0].mean() == pytest.approx(np.mean(seeds), abs=0.003)
    assert samples[:, 0, 0].var() == pytest.approx(np.var(seeds, ddof=1) / 3, rel=0.03)


def test_draws_count_alike_whatever_their_number_of_seeds():
    found = estimate(scores({(1, 1): 0.2, (1, 2): 0.2, (1, 3): 0.2, (2, 1): 0.6}))
    assert found.mean[0, 0] == pytest.approx(0.4)


def test_fewer_than_six_cases_have_no_interval():
    found = estimate(scores({(1, 1): 0.4, (1, 2): 0.6}, cases=tuple("abcde")))
    assert found.mean[0, 0] == pytest.approx(0.5) and found.cases[0, 0] == 5
    assert all(math.isnan(value[0, 0]) for value in (found.low, found.high, found.p))


@pytest.mark.parametrize(
    ("runs", "over"),
    [
        ({(1, 1): 0}, "cases"),
        ({(1, 1): 0, (1, 2): 0}, "cases, seeds"),
        ({(1, 1): 0, (2, 1): 0}, "cases, draws"),
        ({(1, 1): 0, (1, 2): 0, (2, 1): 0}, "cases, seeds, draws"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_levels_of_the_interval_are_named(runs, over):
    assert scores(runs).over == over


def test_p_is_no_less_than_so_many_cases_can_show():
    above = estimate(scores({(1, 1): 0.1, (1, 2): 0.2}))
    assert above.p[0, 0] == 2.0 ** (1 - len(CASES))
    assert estimate(scores({(1, 1): 0.0, (1, 2): 0.0})).p[0, 0] == 1
    # half of the resamples are below 0
    assert estimate(scores({(1, 1): -0.1, (1, 2): 0.1})).p[0, 0] == pytest.approx(1, abs=0.05)


def test_what_one_run_lacks_is_left_out():
    first, second = np.full(len(CASES), 0.5), np.full(len(CASES), 0.7)
    second[:7] = math.nan
    found = estimate(scores({(1, 1): first, (1, 2): second}))
    assert found.mean[0, 0] == pytest.approx(0.6)


def test_pairs_are_of_one_draw_seed_and_case():
    by_case = np.linspace(0, 0.7, len(CASES))
    one = scores({(1, 1): by_case + 0.2, (1, 2): by_case, (1, 3): 0.0})
    other = scores({(1, 1): by_case, (1, 2): by_case, (2, 2): 1.0})
    difference = one.minus(other)
    assert difference.runs == ((1, 1), (1, 2))
    np.testing.assert_allclose(difference.values[:, :, 0, 0].T, [[0.2, 0]] * len(CASES))


def test_neither_the_order_of_runs_nor_that_of_cases_matters(workflow):
    (study,) = plan.load("ranks")
    finish(study, lambda run, case, organ: (run.seed + ord(case) % 7 + len(organ)) / 20)
    found = [o for o in outcomes((study,), RESULTS) if o.run.arm == "rank-4"]
    organs, names = found[0].organs, ("dice", "hd95_mm")
    expected = estimate(stack(found, "strict", organs, names))
    for outcome in found:
        shuffled = outcome.cases.sample(frac=1, random_state=0)
        outcome.cases.iloc[:] = shuffled.to_numpy()
    other = estimate(stack(found[::-1], "strict", organs, names))
    for name in ("mean", "sd_seeds", "low", "high"):
        np.testing.assert_array_equal(getattr(expected, name), getattr(other, name))
    # HD95 is 20 mm at Dice 0 and 0 at Dice 1
    np.testing.assert_allclose(expected.mean[:, 1], 20 * (1 - expected.mean[:, 0]))

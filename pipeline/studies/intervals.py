"""An arm's mean with its spread over seeds and draws, its interval, and paired differences.

The interval is a hierarchical bootstrap (docs/studies.md). Each of 10,000 resamples takes, with
replacement,

- of n draws of slices n - 1, and within each of them of m seeds m - 1; a level of one member is
  taken as it is. Of so few, n of n would give (n - 1) / n of the variance;
- of the test cases as many as there are, the same for all runs, since all are scored on them.

It says how the mean depends on the choice of slices, on the seed and on the choice of test cases,
as far as the runs differ in these: `over` names the levels. Everything is seeded, and neither
the order of the runs nor that of the cases matters.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring import dice
from pipeline.scoring.bootstrap import (
    BLOCK,
    FEWEST,
    SEED,
    bounds,
    cases_counted,
    nanmean,
    resampled_means,
    resamples,
)
from pipeline.scoring.significance import smallest_p
from pipeline.studies.outcomes import Outcome

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of several runs on the same test cases.

    Attributes:
        runs: (draw, seed) of each, sorted.
        cases: their ids, sorted.
        values: (runs, cases, organs, scores); NaN where left out of the means.
    """

    runs: tuple[tuple[int, int], ...]
    cases: tuple[str, ...]
    values: Array

    @property
    def draws(self) -> dict[int, list[int]]:
        """Each draw's places in `runs`."""
        found: dict[int, list[int]] = {}
        for place, (draw, _) in enumerate(self.runs):
            found.setdefault(draw, []).append(place)
        return found

    @property
    def over(self) -> str:
        """What the interval is over, in words: the levels with more than one member."""
        draws = self.draws
        levels = {"cases": True, "seeds": any(len(d) > 1 for d in draws.values())}
        levels["draws"] = len(draws) > 1
        return ", ".join(name for name, several in levels.items() if several)

    def run_means(self) -> Array:
        """(runs, organs + 1, scores): over the cases, and last of these the mean over organs."""
        everyone = np.ones((1, len(self.cases)))
        return np.array([resampled_means(values, everyone)[0] for values in self.values])

    def minus(self, other: "Scores") -> "Scores":
        """Differences of the runs of one draw and seed; NaN where one of the two has no score.

        Args:
            other: what is taken away.

        Returns:
            Of the runs and cases that both have.
        """
        runs = tuple(sorted(set(self.runs) & set(other.runs)))
        cases = tuple(sorted(set(self.cases) & set(other.cases)))
        return Scores(runs, cases, self._of(runs, cases) - other._of(runs, cases))

    def _of(self, runs: Sequence[tuple[int, int]], cases: Sequence[str]) -> Array:
        places = [self.runs.index(run) for run in runs]
        rows = [self.cases.index(case) for case in cases]
        return self.values[np.ix_(places, rows)]


@dataclass(frozen=True, eq=False)
class Estimate:
    """Means of several runs, each array (organs + 1, scores), the last row the mean over organs.

    Attributes:
        mean: over the draws' means over their seeds; NaN where no case counts.
        sd_seeds: standard deviation over seeds (n - 1), pooled over the draws; NaN where no draw
            has two seeds.
        sd_draws: of the draws' means (n - 1); NaN for one draw.
        low, high: 95% interval; NaN where fewer cases count than `bootstrap.FEWEST`.
        p: of the mean being 0, two-sided, for differences: twice the smaller share of resampled
            means on one side of 0, but no less than so many cases can show; NaN as the interval.
        cases: how many count.
    """

    mean: Array
    sd_seeds: Array
    sd_draws: Array
    low: Array
    high: Array
    p: Array
    cases: NDArray[np.int64]


def stack(
    outcomes: Sequence[Outcome], convention: str, organs: Sequence[str], scores: Sequence[str]
) -> Scores:
    """The scores of finished runs of one arm; those that are to do are passed over.

    Args:
        outcomes: of the arm.
        convention: one of `conventions.CONVENTIONS`.
        organs, scores: which ones, in this order.
    """
    done = {(o.run.draw, o.run.seed): o.cases for o in outcomes if o.done}
    tables = {
        key: found[found["convention"] == convention].set_index(["case", "organ"])[list(scores)]
        for key, found in sorted(done.items())
    }
    cases = sorted({case for table in tables.values() for case, _ in table.index})
    order = [(case, organ) for case in cases for organ in organs]
    shape = (len(tables), len(cases), len(organs), len(scores))
    values = [table.reindex(order).to_numpy(np.float64) for table in tables.values()]
    return Scores(tuple(tables), tuple(cases), np.array(values).reshape(shape))


def estimate(scores: Scores) -> Estimate:
    """Mean, spread and interval.

    Args:
        scores: of one run or more.
    """
    by_run = scores.run_means()
    by_draw = np.array([nanmean(by_run[places], 0) for places in scores.draws.values()])
    samples = np.concatenate(list(sample_means(scores)))
    low, high = bounds(samples)
    cases = _cases(scores)
    p = _p(samples, cases)
    for bound in (low, high, p):
        bound[cases < FEWEST] = math.nan
    return Estimate(
        mean=nanmean(by_draw, 0),
        sd_seeds=_sd_seeds(by_run, scores),
        sd_draws=np.apply_along_axis(dice.spread, 0, by_draw),
        low=low,
        high=high,
        p=p,
        cases=cases,
    )


def sample_means(scores: Scores) -> Iterator[Array]:
    """Resampled means, (BLOCK, organs + 1, scores) at a time; NaN where nothing drawn counts."""
    random = np.random.default_rng([SEED, 1])
    for draws in resamples(len(scores.cases)):
        weights = _run_weights(scores, random)
        total, counted = np.zeros(1), np.zeros(1)
        for place, values in enumerate(scores.values):
            means = resampled_means(values, draws)
            weight = weights[:, place, None, None] * ~np.isnan(means)
            total = total + weight * np.nan_to_num(means)
            counted = counted + weight
        with np.errstate(invalid="ignore"):
            yield total / counted


def _run_weights(scores: Scores, random: np.random.Generator) -> Array:
    """Each run's weight in BLOCK resamples, (BLOCK, runs); a row's sum is 1."""
    draws = scores.draws
    taken = max(1, len(draws) - 1)
    often = random.multinomial(taken, np.full(len(draws), 1 / len(draws)), size=BLOCK)
    weights = np.zeros((BLOCK, len(scores.runs)))
    for of_draw, places in zip(often.T, draws.values(), strict=True):
        seeds = max(1, len(places) - 1)
        # a draw that is taken twice has its seeds drawn twice
        counts = random.multinomial(of_draw * seeds, np.full(len(places), 1 / len(places)))
        weights[:, places] = counts / (taken * seeds)
    return weights


def _cases(scores: Scores) -> NDArray[np.int64]:
    """How many cases have a value in any run, (organs + 1, scores)."""
    anywhere = np.where((~np.isnan(scores.values)).any(0), 1.0, math.nan)
    return cases_counted(anywhere)


def _p(samples: Array, cases: NDArray[np.int64]) -> Array:
    defined = (~np.isnan(samples)).sum(0)
    below, above = (samples <= 0).sum(0), (samples >= 0).sum(0)
    found = 2 * (np.minimum(below, above) + 1) / (defined + 1)
    least = np.vectorize(smallest_p, otypes=[np.float64])(cases)
    bounded: Array = np.minimum(1.0, np.maximum(found, least))
    return bounded


def _sd_seeds(by_run: Array, scores: Scores) -> Array:
    """Pooled over the draws: squares about each draw's mean over their degrees of freedom."""
    squares, freedom = np.zeros(by_run.shape[1:]), np.zeros(by_run.shape[1:])
    for places in scores.draws.values():
        of_draw = by_run[places]
        squares += np.nansum((of_draw - nanmean(of_draw, 0)) ** 2, axis=0)
        freedom += np.maximum((~np.isnan(of_draw)).sum(0) - 1, 0)
    spread: Array = np.sqrt(np.where(freedom > 0, squares / np.maximum(freedom, 1), math.nan))
    return spread

"""An arm's mean with its spread over seeds and draws, its interval, and paired differences.

The interval is a hierarchical bootstrap (docs/studies.md). Each of 10,000 resamples takes, with
replacement,

- of n draws of slices n - 1, and within each of them of m seeds m - 1; a level of one member is
  taken as it is. Of so few, n of n would give (n - 1) / n of the variance;
- of the test cases as many as there are, the same for all runs, since all are scored on them. Cases
  of one subject (`split.group`) are taken together, as many subjects as there are.

Over folds, the runs of one draw and seed are one: each case has the score of the run that was
tested on it.

It says how the mean depends on the choice of slices, on the seed and on the choice of test cases,
as far as the runs differ in these: `over` names the levels. Everything is seeded, and neither
the order of the runs nor that of the cases matters.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
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
from pipeline.shards.subjects import owners
from pipeline.studies.outcomes import Outcome

NO_FOLD = -1
Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of several runs on the same test cases; over folds, those of one draw and seed as one.

    Attributes:
        runs: (draw, seed) of each, sorted.
        cases: their ids, sorted.
        values: (runs, cases, organs, scores); NaN where left out of the means.
        subjects: of each case; None: each is of its own.
        folds: (runs, cases), the fold that tested the case, -1: none; None: there are no folds.
    """

    runs: tuple[tuple[int, int], ...]
    cases: tuple[str, ...]
    values: Array
    subjects: tuple[str, ...] | None = None
    folds: NDArray[np.int64] | None = None

    @cached_property
    def units(self) -> NDArray[np.int64]:
        """(cases,) number of each case's subject, which is resampled as a whole."""
        numbered: NDArray[np.int64] = np.unique(self.subjects or self.cases, return_inverse=True)[1]
        return numbered

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
        first = "cases" if len(set(self.units)) == len(self.cases) else "subjects"
        levels = {first: True, "seeds": any(len(d) > 1 for d in draws.values())}
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
        rows = [self.cases.index(case) for case in cases]
        subjects = None if self.subjects is None else tuple(self.subjects[row] for row in rows)
        values = self._of(runs, cases) - other._of(runs, cases)
        return Scores(runs, cases, values, subjects)

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
        sd_folds: over the folds' means over their cases (n - 1), pooled over draws and seeds; NaN
            without folds.
        low, high: 95% interval; NaN where fewer subjects count than `bootstrap.FEWEST`.
        p: of the mean being 0, two-sided, for differences: twice the smaller share of resampled
            means on one side of 0, but no less than so many cases can show; NaN as the interval.
        cases: how many count.
    """

    mean: Array
    sd_seeds: Array
    sd_draws: Array
    sd_folds: Array
    low: Array
    high: Array
    p: Array
    cases: NDArray[np.int64]


def stack(
    outcomes: Sequence[Outcome], convention: str, organs: Sequence[str], scores: Sequence[str]
) -> Scores:
    """The scores of finished runs of one arm; those that are to do are passed over.

    Args:
        outcomes: of the arm; over folds, those of one draw and seed are pooled.
        convention: one of `conventions.CONVENTIONS`.
        organs, scores: which ones, in this order.
    """
    done = [o for o in outcomes if o.done]
    runs = sorted({(o.run.draw, o.run.seed) for o in done})
    parts: dict[tuple[int, int], list[tuple[int, pd.DataFrame]]] = {run: [] for run in runs}
    for outcome in done:
        found = outcome.cases
        table = found[found["convention"] == convention].set_index(["case", "organ"])[list(scores)]
        fold = NO_FOLD if outcome.run.fold is None else outcome.run.fold
        parts[outcome.run.draw, outcome.run.seed].append((fold, table))
    cases = sorted({case for tables in parts.values() for _, t in tables for case, _ in t.index})
    order = [(case, organ) for case in cases for organ in organs]
    shape = (len(runs), len(cases), len(organs), len(scores))
    pooled = [pd.concat([table for _, table in parts[run]]).reindex(order) for run in runs]
    values = np.array([table.to_numpy(np.float64) for table in pooled]).reshape(shape)
    group = done[0].run.params.split.group if done else None
    subjects = None if group is None else tuple(owners(group, cases).values())
    if not done or done[0].run.fold is None:
        return Scores(tuple(runs), tuple(cases), values, subjects)
    folds = np.full((len(runs), len(cases)), NO_FOLD)
    for place, run in enumerate(runs):
        for fold, table in parts[run]:
            folds[place, np.isin(cases, list({case for case, _ in table.index}))] = fold
    return Scores(tuple(runs), tuple(cases), values, subjects, folds)


def estimate(scores: Scores) -> Estimate:
    """Mean, spread and interval.

    Args:
        scores: of one run or more.
    """
    by_run = scores.run_means()
    by_draw = np.array([nanmean(by_run[places], 0) for places in scores.draws.values()])
    samples = np.concatenate(list(sample_means(scores)))
    low, high = bounds(samples)
    anywhere = np.where((~np.isnan(scores.values)).any(0), 1.0, math.nan)
    of_subjects = [nanmean(anywhere[scores.units == unit], 0) for unit in np.unique(scores.units)]
    cases, subjects = cases_counted(anywhere), cases_counted(np.array(of_subjects))
    p = _p(samples, subjects)
    for bound in (low, high, p):
        bound[subjects < FEWEST] = math.nan
    return Estimate(
        mean=nanmean(by_draw, 0),
        sd_seeds=_pooled([by_run[places] for places in scores.draws.values()]),
        sd_draws=np.apply_along_axis(dice.spread, 0, by_draw),
        sd_folds=np.broadcast_to(_pooled(_fold_means(scores)), cases.shape),
        low=low,
        high=high,
        p=p,
        cases=cases,
    )


def sample_means(scores: Scores) -> Iterator[Array]:
    """Resampled means, (BLOCK, organs + 1, scores) at a time; NaN where nothing drawn counts."""
    random = np.random.default_rng([SEED, 1])
    for draws in resamples(len(set(scores.units))):
        draws = draws[:, scores.units]
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


def _p(samples: Array, cases: NDArray[np.int64]) -> Array:
    defined = (~np.isnan(samples)).sum(0)
    below, above = (samples <= 0).sum(0), (samples >= 0).sum(0)
    found = 2 * (np.minimum(below, above) + 1) / (defined + 1)
    least = np.vectorize(smallest_p, otypes=[np.float64])(cases)
    bounded: Array = np.minimum(1.0, np.maximum(found, least))
    return bounded


def _fold_means(scores: Scores) -> list[Array]:
    """Of each run its folds' means over their cases, (folds, organs + 1, scores); no run's without
    folds.
    """
    if scores.folds is None:
        return []
    tested = zip(scores.values, scores.folds, strict=True)
    return [
        np.array(
            [
                resampled_means(values[folds == fold], np.ones((1, int((folds == fold).sum()))))[0]
                for fold in np.unique(folds[folds >= 0])
            ]
        )
        for values, folds in tested
    ]


def _pooled(groups: Sequence[Array]) -> Array:
    """Standard deviation within groups, each (members, ...): squares about each group's mean over
    their degrees of freedom; NaN where there are none.
    """
    squares, freedom = np.zeros(1), np.zeros(1)
    for members in groups:
        squares = squares + np.nansum((members - nanmean(members, 0)) ** 2, axis=0)
        freedom = freedom + np.maximum((~np.isnan(members)).sum(0) - 1, 0)
    return np.sqrt(np.where(freedom > 0, squares / np.maximum(freedom, 1), math.nan))

"""How Dice grows along a parameter, such as the number of labelled slices: a saturating power law.

    Dice(x) = ceiling - shortfall * (x / largest x) ** -power

fitted to the arms' means by least squares, with a ceiling of 100% at most. What it gives at twice
the labels has a 95% interval from the resamples of `intervals`, fitted one by one. Where it can't
be said it isn't: of fewer than four sizes, where Dice doesn't grow, or where the law explains less
than 80% of the variance between the arms.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

from pipeline.inference.titles import model_title
from pipeline.scoring.bootstrap import bounds
from pipeline.studies.intervals import Scores, estimate, sample_means
from pipeline.studies.outcomes import Outcome

SLICES = "split.slices"  # a share, in whose place the slices themselves are counted
LABELLED = "labelled slices"
MODEL = "train.model"  # whose values have titles
FEWEST_SIZES = 4
EXPLAINED = 0.8  # least share of the variance between the arms' means
POWERS = np.geomspace(0.05, 4, 40)
FULL = 100.0  # Dice, %

Array = NDArray[np.float64]
Arm: TypeAlias = tuple[Sequence[Outcome], Scores]


@dataclass(frozen=True)
class Law:
    """A fitted law.

    Attributes:
        ceiling: Dice, %, that it tends to.
        shortfall: what lacks of it at `largest`, percentage points.
        power: how fast that vanishes.
        largest: the largest x that it was fitted to.
        explained: share of the variance between the means that it explains.
    """

    ceiling: float
    shortfall: float
    power: float
    largest: float
    explained: float

    def at(self, x: float) -> float:
        """Dice, %."""
        return self.ceiling - self.shortfall * (x / self.largest) ** -self.power


@dataclass(frozen=True)
class Point:
    """An arm on the curve.

    Attributes:
        arm: its name.
        x: its value of the parameter, or its labelled slices.
        dice: its mean over organs, %.
        fitted, at_twice: what the law gives at x, and at twice x; NaN without a law.
        low, high: 95% interval of `at_twice`; NaN where there is none.
        gain: what twice x gives more than x by the law, points; `gain_low` and `gain_high` its
            95% interval.
    """

    arm: str
    x: float
    dice: float
    fitted: float = math.nan
    at_twice: float = math.nan
    low: float = math.nan
    high: float = math.nan
    gain: float = math.nan
    gain_low: float = math.nan
    gain_high: float = math.nan


@dataclass(frozen=True)
class Curve:
    """A curve through arms.

    Attributes:
        of: what its arms have in common, in words; "" where a study has one curve.
        points: of the arms with a finished run, by x.
        law: None where it can't be said.
        why: why not; None with a law.
    """

    of: str
    points: tuple[Point, ...]
    law: Law | None
    why: str | None


@dataclass(frozen=True)
class Curves:
    """The curves of a study.

    Attributes:
        along: what x is, in words.
        each: in the order in which their first arms are declared.
    """

    along: str
    each: tuple[Curve, ...]


def curves(along: str, by: str | None, arms: Mapping[str, Arm]) -> Curves:
    """The curves through the arms that have a finished run.

    Args:
        along: the parameter that the arms of a curve differ in, as block.key.
        by: the parameter that tells the curves apart, as block.key; None: there is one.
        arms: name to its outcomes, and to the scores of those that are finished, of which the first
            is Dice.
    """
    groups: dict[str, dict[str, Arm]] = {}
    for name, arm in arms.items():
        groups.setdefault("" if by is None else _words(by, arm[0]), {})[name] = arm
    each = tuple(_curve(of, along, group) for of, group in groups.items())
    return Curves(LABELLED if along == SLICES else along, each)


def _curve(of: str, along: str, arms: Mapping[str, Arm]) -> Curve:
    found = {name: (_x(along, outcomes), scores) for name, (outcomes, scores) in arms.items()}
    known = {name: (x, s) for name, (x, s) in found.items() if x is not None and s.runs}
    order = sorted(known, key=lambda name: known[name][0])
    x = np.array([known[name][0] for name in order])
    estimates = [estimate(known[name][1]) for name in order]
    y = FULL * np.array([found.mean[-1, 0] for found in estimates])
    points = [Point(name, float(a), float(b)) for name, a, b in zip(order, x, y, strict=True)]
    if len(set(x)) < FEWEST_SIZES:
        return Curve(of, tuple(points), None, f"fewer than {FEWEST_SIZES} sizes are finished")
    law = fit(x, y)
    if (why := _objection(law)) is not None:
        return Curve(of, tuple(points), None, why)
    laws: list[Law] = []
    if not any(math.isnan(found.low[-1, 0]) for found in estimates):
        laws = _resampled(x, [known[name][1] for name in order])
    fitted = [_on_law(point, law, laws) for point in points]
    return Curve(of, tuple(fitted), law, None)


def fit(x: Array, y: Array) -> Law:
    """The law that fits best.

    Args:
        x: (arms,), positive, of several values.
        y: Dice of each, %.
    """
    scaled = x / x.max()

    def misfit(power: float) -> float:
        ceiling, shortfall = _linear(scaled**-power, y)
        return float(((ceiling - shortfall * scaled**-power - y) ** 2).sum())

    # a coarse look first, since there may be several valleys
    best = int(np.argmin([misfit(power) for power in POWERS]))
    valley = (POWERS[max(best - 1, 0)], POWERS[min(best + 1, len(POWERS) - 1)])
    found = optimize.minimize_scalar(misfit, bounds=valley, method="bounded")
    power = float(found.x)
    ceiling, shortfall = _linear(scaled**-power, y)
    total = float(((y - y.mean()) ** 2).sum())
    explained = 1 - misfit(power) / total if total else 0.0
    return Law(ceiling, shortfall, power, float(x.max()), explained)


def _linear(z: Array, y: Array) -> tuple[float, float]:
    """Ceiling, at most 100, and shortfall, at least 0, of y = ceiling - shortfall * z."""
    centred = z - z.mean()
    shortfall = -float(centred @ y) / float(centred @ centred)
    if shortfall <= 0:
        return float(y.mean()), 0.0
    ceiling = float(y.mean() + shortfall * z.mean())
    if ceiling <= FULL:
        return ceiling, shortfall
    return FULL, float(z @ (FULL - y)) / float(z @ z)


def _objection(law: Law) -> str | None:
    if law.shortfall <= 0:
        return "Dice doesn't grow"
    if law.explained < EXPLAINED:
        return f"the law explains {law.explained:.0%} of the variance between the arms"
    return None


def _resampled(x: Array, scores: Sequence[Scores]) -> list[Law]:
    """Laws fitted to the first block of resamples, which take the same cases in every arm."""
    samples = [next(islice(sample_means(found), 1))[:, -1, 0] for found in scores]
    return [fit(x, FULL * row) for row in np.array(samples).T if not np.isnan(row).any()]


def _on_law(point: Point, law: Law, laws: Sequence[Law]) -> Point:
    """The point with what the law gives, and intervals from the resampled laws, if any."""
    here, twice = law.at(point.x), law.at(2 * point.x)
    samples = [(other.at(2 * point.x), other.at(2 * point.x) - other.at(point.x)) for other in laws]
    low, high = bounds(np.array(samples).reshape(-1, 2))
    return replace(
        point,
        fitted=here,
        at_twice=twice,
        low=float(low[0]),
        high=float(high[0]),
        gain=twice - here,
        gain_low=float(low[1]),
        gain_high=float(high[1]),
    )


def _x(along: str, outcomes: Sequence[Outcome]) -> float | None:
    """An arm's place on the curve; None where it has none yet, or no positive number."""
    if along == SLICES:
        slices = [o.facts.train_slices for o in outcomes if o.facts is not None]
        return float(np.mean(slices)) if slices else None
    value = _value(along, outcomes)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _words(by: str, outcomes: Sequence[Outcome]) -> str:
    """An arm's value of the parameter, as people say it."""
    value = str(_value(by, outcomes))
    return model_title(value) if by == MODEL else value


def _value(key: str, outcomes: Sequence[Outcome]) -> Any:
    block, _, name = key.partition(".")
    return getattr(getattr(outcomes[0].run.params, block), name)

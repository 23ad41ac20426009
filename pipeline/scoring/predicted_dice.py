"""A predicted Dice with an interval for each organ of a prediction whose truth isn't known.

On cases with truth, logit(Dice) is fitted by a line in the logits of the signs of doubt
(`scoring.uncertainty`), with an offset of each organ. No slope is negative: more doubt never
means a higher Dice. Offsets are shrunk to 0 and slopes a little, so that few cases suffice. The
interval holds LEVEL of the cases in the long run, if new cases are like those of the fit: its half
width, on the logit scale, is the conformal quantile of the distances between truth and prediction,
each predicted without its own case (the jackknife). It is wide near a Dice of one half and narrow
near 1, as the errors are.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.correlation import rank_correlation
from pipeline.scoring.uncertainty import Signs

LEVEL = 0.9  # share of cases whose Dice the interval is to hold
FEWEST = 10  # cases below which nothing is said; nine are the least that an interval of 90% needs
OWN = 20  # pairs of an organ from which on its interval is its own; else it is that of all organs
EDGE = 0.01  # Dice and signs are taken as at least this far from 0 and 1, where logits are endless
SHRINK = 5.0  # pairs that pull an organ's offset to 0
RIDGE = 1.0  # pairs with a sign of one standard deviation that pull a slope to 0

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pair:
    """An organ predicted in a case whose truth is known.

    Attributes:
        case, organ: names.
        signs: of doubt.
        dice: the true one, 0 where the organ isn't there.
        unlike: its labels are unlike those of the training.
    """

    case: str
    organ: str
    signs: Signs
    dice: float
    unlike: bool = False


@dataclass(frozen=True)
class Predicted:
    """A predicted Dice and the ends of its interval, in [0, 1]."""

    dice: float
    low: float
    high: float


@dataclass(frozen=True)
class Calibration:
    """From signs of doubt to a predicted Dice.

    Attributes:
        intercept: at the mean of the signs, logit.
        slopes: sign to the slope of its logit, 0 or more.
        centres: sign to the mean of its logit.
        lowest: sign to its least logit in the fit.
        offsets: organ to its offset, logit.
        widths: organ to the half width of its interval, logit.
        cases, pairs: how many it was fitted on.
    """

    intercept: float
    slopes: dict[str, float]
    centres: dict[str, float]
    lowest: dict[str, float]
    offsets: dict[str, float]
    widths: dict[str, float]
    cases: int
    pairs: int

    def predict(self, organ: str, signs: Signs, unlike: bool = False) -> Predicted | None:
        """The predicted Dice of an organ; None for one that no case of the fit had.

        With more doubt than any case of the fit had, the interval begins at 0, and so it does
        where the organ's labels are unlike those of the training.
        """
        if organ not in self.offsets:
            return None
        place = self.intercept + self.offsets[organ]
        beyond = unlike
        for sign, slope in self.slopes.items():
            found = _logit(getattr(signs, sign))
            place += slope * (found - self.centres[sign])
            beyond |= found < self.lowest[sign]
        width = self.widths[organ]
        low, high = _expit(place - width), _expit(place + width)
        # a Dice beyond EDGE stood at EDGE in the fit
        return Predicted(
            _expit(place),
            0.0 if beyond or low <= EDGE else min(low, 1 - EDGE),
            1.0 if high >= 1 - EDGE else max(high, EDGE),
        )

    def to_json(self) -> dict[str, Any]:
        """As files hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Calibration":
        """What `to_json` gave; TypeError or ValueError for anything else."""
        numbers = ("slopes", "centres", "lowest", "offsets", "widths")
        parts = {name: {str(k): float(v) for k, v in value[name].items()} for name in numbers}
        cases, pairs = int(value["cases"]), int(value["pairs"])
        return cls(float(value["intercept"]), **parts, cases=cases, pairs=pairs)


def calibrate(pairs: Sequence[Pair]) -> Calibration | None:
    """Fit to cases with truth; None below FEWEST cases.

    Raises:
        ValueError: some pairs have other signs than the others.
    """
    cases = sorted({pair.case for pair in pairs})
    if len(cases) < FEWEST:
        return None
    fit = _Fit(pairs)
    missed = np.empty(len(pairs))
    for case in cases:
        own = np.array([pair.case == case for pair in pairs])
        missed[own] = np.abs(fit.truth[own] - fit.rows[own] @ fit.solve(~own))
    of_organ = np.array([pair.organ for pair in pairs])
    widths = {}
    for organ in fit.organs:
        own = missed[of_organ == organ]
        widths[organ] = quantile(own if len(own) >= OWN else missed)
    values = fit.solve(np.ones(len(pairs), bool)).tolist()
    slopes = values[1 : 1 + len(fit.signs)]
    return Calibration(
        values[0],
        dict(zip(fit.signs, slopes, strict=True)),
        dict(zip(fit.signs, fit.centres.tolist(), strict=True)),
        dict(zip(fit.signs, fit.lowest.tolist(), strict=True)),
        dict(zip(fit.organs, values[1 + len(fit.signs) :], strict=True)),
        widths,
        len(cases),
        len(pairs),
    )


def left_out(pairs: Sequence[Pair]) -> list[tuple[Pair, Predicted]]:
    """Each pair with what a calibration on the other cases predicts; without those it can't say."""
    found = []
    for case in sorted({pair.case for pair in pairs}):
        calibration = calibrate([pair for pair in pairs if pair.case != case])
        found += applied(calibration, [pair for pair in pairs if pair.case == case])
    return found


def applied(calibration: Calibration | None, pairs: Sequence[Pair]) -> list[tuple[Pair, Predicted]]:
    """Each pair with what a calibration predicts; without those of which it can't say anything."""
    if calibration is None:
        return []
    found = [(pair, calibration.predict(pair.organ, pair.signs, pair.unlike)) for pair in pairs]
    return [(pair, predicted) for pair, predicted in found if predicted is not None]


def judged(found: Sequence[tuple[Pair, Predicted]]) -> dict[str, Any]:
    """How good predictions are where the truth is known.

    Args:
        found: pairs with what was predicted of them.

    Returns:
        pairs: how many; mean_absolute_error; coverage: share of the pairs whose Dice is within its
        interval; mean_width of the intervals; spearman: rank correlation of predicted and true
        Dice. A number that isn't defined has no entry.
    """
    result: dict[str, Any] = {"pairs": len(found)}
    if not found:
        return result
    true = np.array([pair.dice for pair, _ in found])
    said = np.array([[p.dice, p.low, p.high] for _, p in found])
    result["mean_absolute_error"] = float(np.abs(said[:, 0] - true).mean())
    result["coverage"] = float(((said[:, 1] <= true) & (true <= said[:, 2])).mean())
    result["mean_width"] = float((said[:, 2] - said[:, 1]).mean())
    correlation = rank_correlation(said[:, 0].tolist(), true.tolist())
    return result if correlation is None else result | {"spearman": correlation}


def quantile(distances: Array) -> float:
    """The least distance that a further one exceeds with a chance of at most 1 - LEVEL.

    That holds if all are exchangeable; organs of one case are so only roughly. Endless where there
    are too few distances to say so.
    """
    rank = math.ceil(LEVEL * (len(distances) + 1))
    return float(np.sort(distances)[rank - 1]) if rank <= len(distances) else math.inf


class _Fit:
    """The least squares of a calibration, on the logit scale.

    Attributes:
        signs: those that the pairs have.
        organs: in the order of the columns.
        centres, lowest: mean and least of each sign's logit.
        rows: (pairs, columns): 1, the centred signs, and 1 in the organ's column.
        truth: logit of the true Dice, (pairs,).
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        given = {
            tuple(sign for sign, share in vars(pair.signs).items() if share is not None)
            for pair in pairs
        }
        if len(given) > 1:
            raise ValueError(f"signs: expected the same ones in all pairs, found {sorted(given)}")
        (self.signs,) = given
        self.organs = list(dict.fromkeys(pair.organ for pair in pairs))
        logits = np.array([[_logit(getattr(p.signs, sign)) for sign in self.signs] for p in pairs])
        self.centres, self.lowest = logits.mean(axis=0), logits.min(axis=0)
        organs = np.array([[pair.organ == organ for organ in self.organs] for pair in pairs])
        ones = np.ones((len(pairs), 1))
        self.rows = np.concatenate([ones, logits - self.centres, organs], axis=1)
        self.truth = np.array([_logit(pair.dice) for pair in pairs])
        spread = RIDGE * logits.var(axis=0) + 1e-9  # a sign that is always the same says nothing
        self._pull = np.array([0.0, *spread, *(SHRINK for _ in self.organs)])

    def solve(self, used: NDArray[np.bool_]) -> Array:
        """The columns' coefficients, from the pairs that are used; no slope is negative."""
        rows, truth = self.rows[used], self.truth[used]
        kept = np.ones(rows.shape[1], bool)
        while True:
            part = rows[:, kept]
            found = np.zeros(len(kept))
            found[kept] = np.linalg.solve(part.T @ part + np.diag(self._pull[kept]), part.T @ truth)
            slopes = found[1 : 1 + len(self.signs)]
            if slopes.min() >= 0:
                return found
            kept[1 + int(slopes.argmin())] = False


def _logit(share: float) -> float:
    inside = min(max(share, EDGE), 1 - EDGE)
    return math.log(inside / (1 - inside))


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0

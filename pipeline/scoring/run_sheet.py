"""Scores of several runs as a table for papers: an organ a row, a run a column."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring import dice
from pipeline.scoring.bootstrap import nanmean
from pipeline.scoring.comparison import marks
from pipeline.scoring.runs import ScoredRun
from pipeline.scoring.scores import SCORES, Kind, Score
from pipeline.scoring.sheet import NONE, Sheet, number
from pipeline.scoring.significance import stars
from pipeline.scoring.tables import OVERALL

# what of a score is best, by its kind; a size is best near 0
LOSS: dict[Kind, Callable[[float], float]] = {
    "overlap": lambda value: -value,
    "distance": lambda value: value,
    "size": abs,
}


def run_sheet(
    runs: Sequence[ScoredRun], score: Score, compared: Sequence[Mapping[str, Any]] = ()
) -> Sheet:
    """Mean and standard deviation over the cases, the best mean of each row in bold.

    The last row is the mean of the organs' means, with the deviation of the cases' means. Stars
    say how sure it is that a run differs from the first one.

    Args:
        runs: comparable ones.
        score: which one.
        compared: of `comparison`, the rows of this score; empty: no stars.
    """
    organs = runs[0].organs
    starred = {(row["run"], row["organ"]): stars(row["p_holm"]) for row in compared}
    found = [(means(run, score), case_values(run, score)) for run in runs]
    rows, bold = [], set()
    for row, organ in enumerate([*organs, OVERALL]):
        cells = [
            _cell(mean[row], values[:, row], score.digits) + starred.get((run.name, organ), "")
            for run, (mean, values) in zip(runs, found, strict=True)
        ]
        rows.append((organ, *cells))
        bold |= {(row, 1 + run) for run in _best([mean[row] for mean, _ in found], score)}
    cases = len(runs[0].case_ids)
    over = f"{cases} test case{'' if cases == 1 else 's'}"
    notes = [f"Mean ± sd over {over}, convention {runs[0].metrics['convention']}."]
    if bold:
        notes.append("Bold: the best mean of a row.")
    if meant := marks(runs, compared):
        notes.append(meant)
    return Sheet(
        f"table-{score.name}",
        score.label,
        ("organ", *(run.name for run in runs)),
        tuple(rows),
        frozenset({len(organs)}),
        tuple(notes),
        frozenset(bold),
    )


def case_values(run: ScoredRun, score: Score) -> NDArray[np.float64]:
    """A run's scores, (cases, organs + 1), NaN where nothing counts.

    The last column is the mean over the case's organs.
    """
    column = list(SCORES).index(score.name)
    values = run.values(run.case_ids, run.organs)[:, :, column]
    return np.column_stack([values, nanmean(values, 1)])


def means(run: ScoredRun, score: Score) -> list[float]:
    """A run's mean over the cases of each organ, then the mean of these; NaN where nothing counts.

    The last one is the run's headline.
    """
    by_organ = nanmean(case_values(run, score)[:, :-1], 0)
    return [*by_organ.tolist(), dice.mean(by_organ)]


def _cell(mean: float, values: NDArray[np.float64], digits: int) -> str:
    if np.isnan(mean):
        return NONE
    text, spread = number(mean, digits), dice.spread(values)
    # of one case there is no spread
    return text if np.isnan(spread) else f"{text} ± {number(spread, digits)}"


def _best(found: Sequence[float], score: Score) -> list[int]:
    """Runs with the best mean as it is shown; none where all that have one are equal."""
    losses = {
        run: LOSS[score.kind](round(mean, score.digits))
        for run, mean in enumerate(found)
        if not np.isnan(mean)
    }
    if len(set(losses.values())) < 2:
        return []
    return [run for run, loss in losses.items() if loss == min(losses.values())]

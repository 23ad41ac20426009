"""Paired differences between runs on the same test cases, each run against the first."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.bootstrap import FEWEST, mean_intervals, nanmean
from pipeline.scoring.dice import none_if_nan
from pipeline.scoring.runs import ScoredRun, longest_voxel_mm
from pipeline.scoring.scores import SCORES
from pipeline.scoring.significance import (
    SIGNIFICANT,
    STARS,
    holm,
    signed_rank,
    smallest_p,
    stars,
)
from pipeline.scoring.tables import OVERALL


def comparison(
    runs: Sequence[ScoredRun], scores: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """One row for each run after the first, score and organ, and for the mean over organs.

    Args:
        runs: comparable ones; the first is what the others are held against.
        scores: names of those to compare; None: all. An exact test of tied differences takes a
            second.

    Returns:
        run, baseline, score, organ, `difference` (run - baseline, mean over cases) with its 95%
        bootstrap interval `low` and `high`, `p` (Wilcoxon's signed-rank test, two-sided), `p_holm`
        (Holm's correction over the organs; of the mean over organs, p itself), `p_smallest` (what
        p can be at best with so many cases), `cases` that count in both, `values` (each case's
        difference where they are too few for an interval), `below_voxel` (the score's tolerance
        is below the side of a voxel of a case). None where nothing counts.
    """
    baseline, rows = runs[0], []
    voxel = longest_voxel_mm(runs)
    cases, organs = baseline.case_ids, baseline.organs
    for run in runs[1:]:
        differences = run.values(cases, organs) - baseline.values(cases, organs)
        means, low, high = mean_intervals(differences)
        for column, score in enumerate(SCORES):
            if scores is not None and score not in scores:
                continue
            by_organ = [*differences[:, :, column].T, nanmean(differences[:, :, column], 1)]
            p = [signed_rank(values) for values in by_organ]
            corrected = [*holm(p[:-1]), p[-1]]
            for row, organ in enumerate([*organs, OVERALL]):
                cases_counted = int((~np.isnan(by_organ[row])).sum())
                rows.append(
                    {
                        "run": run.name,
                        "baseline": baseline.name,
                        "score": score,
                        "organ": organ,
                        "difference": none_if_nan(means[row, column]),
                        "low": none_if_nan(low[row, column]),
                        "high": none_if_nan(high[row, column]),
                        "p": none_if_nan(p[row]),
                        "p_holm": none_if_nan(corrected[row]),
                        "p_smallest": none_if_nan(smallest_p(cases_counted)),
                        "cases": cases_counted,
                        "values": "" if cases_counted >= FEWEST else _listed(by_organ[row]),
                        "below_voxel": voxel is not None and SCORES[score].is_below(voxel),
                    }
                )
    return rows


def marks(runs: Sequence[ScoredRun], compared: Sequence[Mapping[str, Any]]) -> str:
    """What the stars of some rows of `comparison` mean, of one score; "" for no row."""
    if not compared:
        return ""
    cases, organs = len(runs[0].case_ids), len(runs[0].organs)
    test = (
        f"against {runs[0].name}: Wilcoxon's signed-rank test over {cases} "
        f"case{'' if cases == 1 else 's'}, Holm's correction over the organs, none for their mean."
    )
    least = smallest_p(cases)
    if least >= SIGNIFICANT:
        return f"So few cases can't show a difference at p < {SIGNIFICANT:g} {test}"
    given = {stars(row["p_holm"]) for row in compared}
    meant = [("*" * n, bound) for n, bound in enumerate(reversed(STARS), 1)]
    shown = [f"{star} p < {bound:g}" for star, bound in meant if star in given]
    note = f"{', '.join(shown) or f'No p < {SIGNIFICANT:g}'} {test}"
    if least * organs >= SIGNIFICANT:
        note += " So few cases can't show it for a single organ."
    return note


def _listed(differences: NDArray[np.float64]) -> str:
    """The differences that count, from the least on."""
    return ", ".join(f"{value:+.3f}" for value in sorted(differences[~np.isnan(differences)]))

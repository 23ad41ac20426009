"""Paired differences between runs on the same test cases, each run against the first."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.bootstrap import FEWEST, mean_intervals, nanmean
from pipeline.scoring.dice import none_if_nan
from pipeline.scoring.runs import ScoredRun, longest_voxel_mm
from pipeline.scoring.scores import SCORES
from pipeline.scoring.significance import holm, signed_rank, smallest_p
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


def _listed(differences: NDArray[np.float64]) -> str:
    """The differences that count, from the least on."""
    return ", ".join(f"{value:+.3f}" for value in sorted(differences[~np.isnan(differences)]))

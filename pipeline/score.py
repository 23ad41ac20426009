"""`hsam score`: label volumes of any tool, scored as the evaluate stage scores its own.

Output: metrics.json, cases and organs as CSV and parquet (docs/evaluation.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline import files, scores
from pipeline.console import say
from pipeline.errors import UserError
from pipeline.label_names import read_label_names
from pipeline.measures import Labels, Measures, measure_organs
from pipeline.pool import over_cases
from pipeline.score_files import LabelPair, find_pairs, read_pair
from pipeline.score_table import print_scores

Organs = dict[str, tuple[Labels, Labels]]


@dataclass(frozen=True)
class CaseResult:
    """One case: organ to what was measured, and labels that belong to no organ."""

    measured: dict[str, Measures]
    other_truth: frozenset[int]
    other_prediction: frozenset[int]


def run(
    truth: Path,
    prediction: Path,
    labels: Path,
    out: Path,
    *,
    prediction_labels: Path | None = None,
    convention: str = "paper",
    names: tuple[str, str] = ("{case}", "{case}"),
    cases: Sequence[str] = (),
    jobs: int = 1,
) -> None:
    """Score every case of two folders and write the tables; nothing is written when any fails.

    Args:
        truth, prediction: folders of label volumes (NIfTI, MHA, MHD, NRRD).
        labels: describes the organs' labels, of both folders unless `prediction_labels` is given;
            see `label_names.read_label_names`.
        out: folder to write to; other files in it stay.
        prediction_labels: describes those of the prediction.
        convention: the headline's, one of `conventions.CONVENTIONS`.
        names, cases: see `score_files.find_pairs`.
        jobs: processes.

    Raises:
        UserError: folders, labels or volumes that can't be scored; lists every problem.
    """
    organs = _organs(labels, prediction_labels)
    pairs = {pair.case: pair for pair in find_pairs(truth, prediction, names, cases)}
    results, problems = over_cases(partial(score_pair, organs), pairs, jobs, "score")
    if problems:
        raise UserError(problems)
    measured = {case: result.measured for case, result in results.items()}
    others = {
        "truth": sorted(frozenset().union(*(r.other_truth for r in results.values()))),
        "prediction": sorted(frozenset().union(*(r.other_prediction for r in results.values()))),
    }
    for side, values in others.items():
        if values:
            say(f"{side}: labels {values} belong to no organ and count as background")
    rows = scores.write_scores(out, measured, list(organs), convention)
    about = {"cases": len(measured), "convention": convention, "other_labels": others}
    summary = scores.summary(rows, measured, convention) | about
    files.write_json(out / "metrics.json", summary)
    print_scores(summary, f"cases: {len(measured)}")
    say(f"score: {out / 'cases.csv'}, organs.csv, metrics.json")


def score_pair(organs: Organs, pair: LabelPair) -> CaseResult:
    """Read and measure one case.

    Raises:
        UserError: its volumes can't be read, hold no labels or lie on different grids.
    """
    truth, prediction, spacing = read_pair(pair)
    measured = measure_organs(truth, prediction, organs, spacing)
    sides = (truth, prediction)
    others = (_others(volume, organs, side) for side, volume in enumerate(sides))
    return CaseResult(measured, *others)


def _organs(labels: Path, prediction_labels: Path | None) -> Organs:
    own = read_label_names(labels)
    if prediction_labels is None:
        return {name: (values, values) for name, values in own.items()}
    other = read_label_names(prediction_labels)
    if set(own) != set(other):
        raise UserError(
            f"{prediction_labels}: expected the organs of {labels} ({', '.join(own)}), "
            f"found {', '.join(other)}; give both the same names."
        )
    return {name: (values, other[name]) for name, values in own.items()}


def _others(volume: np.ndarray, organs: Organs, side: int) -> frozenset[int]:
    known = {0}.union(*(labels[side] for labels in organs.values()))
    present = np.flatnonzero(np.bincount(volume.ravel()))
    return frozenset(int(value) for value in present) - known

"""`hsam score`: label volumes of any tool, scored as the evaluate stage scores its own.

Output: metrics.json, cases and organs as CSV and parquet (docs/evaluation.md).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.core import files
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.core.pool import over_cases
from pipeline.scoring import tables
from pipeline.scoring.labels import read_pair
from pipeline.scoring.measures import Measures, measure_organs
from pipeline.scoring.organs import Organs, read_file_names, read_label_names
from pipeline.scoring.pairs import LabelPair, find_pairs
from pipeline.scoring.tables import print_scores


@dataclass(frozen=True)
class CaseResult:
    """One case: organ to what was measured, labels or mask files that belong to no organ, notes."""

    measured: dict[str, Measures]
    other_truth: frozenset[int | str]
    other_prediction: frozenset[int | str]
    notes: tuple[str, ...]


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
        truth, prediction: folders of label volumes (NIfTI, MHA, MHD, NRRD), or of folders with
            one mask file an organ.
        labels: describes the organs' labels, of both folders unless `prediction_labels` is given;
            see `organs.read_label_names`, and `read_file_names` for mask files.
        out: folder to write to; other files in it stay.
        prediction_labels: describes those of the prediction.
        convention: the headline's, one of `conventions.CONVENTIONS`.
        names, cases: see `pairs.find_pairs`.
        jobs: processes.

    Raises:
        UserError: folders, labels or volumes that can't be scored; lists every problem.
    """
    pairs = {pair.case: pair for pair in find_pairs(truth, prediction, names, cases)}
    organs = _organs(labels, prediction_labels, pairs.values())
    results, problems = over_cases(partial(score_pair, *organs), pairs, jobs, "score")
    if problems:
        raise UserError(problems)
    measured = {case: result.measured for case, result in results.items()}
    others = {
        "truth": sorted(frozenset().union(*(r.other_truth for r in results.values()))),
        "prediction": sorted(frozenset().union(*(r.other_prediction for r in results.values()))),
    }
    for side, values in others.items():
        if values:
            what = "files" if isinstance(values[0], str) else "labels"
            say(f"{side}: {what} {values} belong to no organ and count as background")
    for note in (note for result in results.values() for note in result.notes):
        say(f"warning: {note}")
    rows = tables.write_scores(out, measured, list(organs[0]), convention)
    about = {"cases": len(measured), "convention": convention, "other_labels": others}
    summary = tables.summary(rows, measured, convention) | about
    files.write_json(out / "metrics.json", summary)
    print_scores(summary, f"cases: {len(measured)}")
    say(f"score: {out / 'cases.csv'}, organs.csv, metrics.json")


def score_pair(truth: Organs, prediction: Organs, pair: LabelPair) -> CaseResult:
    """Read and measure one case.

    Raises:
        UserError: its volumes can't be read, hold no labels or lie on different grids.
    """
    true, predicted = read_pair(pair, truth, prediction)
    organs = {name: (true.organs[name], predicted.organs[name]) for name in truth}
    spacing = true.geometry.spacing[::-1]
    measured = measure_organs(true.array, predicted.array, organs, spacing)
    notes = tuple(f"{pair.case}: {note}" for note in (*true.notes, *predicted.notes))
    return CaseResult(measured, true.others, predicted.others, notes)


def _organs(
    labels: Path, prediction_labels: Path | None, pairs: Iterable[LabelPair]
) -> tuple[Organs, Organs]:
    """Organ to labels or names of mask files, of the truth and of the prediction."""
    first = next(iter(pairs))
    paths = (labels, prediction_labels or labels)
    found = []
    for path, source in zip(paths, (first.truth, first.prediction), strict=True):
        read = read_label_names if isinstance(source, Path) else read_file_names
        found.append(read(path))
    own, other = found
    if set(own) != set(other):
        raise UserError(
            f"{prediction_labels}: expected the organs of {labels} ({', '.join(own)}), "
            f"found {', '.join(other)}; give both the same names."
        )
    return own, other

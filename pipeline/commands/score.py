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
from pipeline.scoring.conventions import STRICT
from pipeline.scoring.labels import read_pair
from pipeline.scoring.measures import Measures, measure_organs
from pipeline.scoring.organs import Organs, read_file_names, read_label_names
from pipeline.scoring.pairs import LabelPair, Source, find_pairs
from pipeline.scoring.tables import print_scores


@dataclass(frozen=True)
class CaseResult:
    """What came of one case.

    Attributes:
        measured: organ to what was measured.
        other_truth, other_prediction: labels, or names of mask files, that belong to no organ.
        notes: warnings for the user, one sentence each.
    """

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
    convention: str = STRICT,
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
        prediction_labels: describes those of the prediction; None: as in `labels`.
        convention: how empty masks count in `cases` and in the means of metrics.json, one of
            `conventions.CONVENTIONS`.
        names, cases: see `pairs.find_pairs`.
        jobs: how many processes score cases.

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
    metrics = tables.summary(rows, measured, convention) | {
        "cases": len(measured),
        "convention": convention,
        "other_labels": others,
    }
    files.write_json(out / "metrics.json", metrics)
    print_scores(metrics, f"cases: {len(measured)}")
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

    def read(path: Path, source: Source) -> Organs:
        return read_label_names(path) if isinstance(source, Path) else read_file_names(path)

    pair = next(iter(pairs))  # a folder holds label maps only, or masks only
    truth, prediction = read(labels, pair.truth), read(prediction_labels or labels, pair.prediction)
    if set(truth) != set(prediction):
        raise UserError(
            f"{prediction_labels}: expected the organs of {labels} ({', '.join(truth)}), "
            f"found {', '.join(prediction)}; give both the same names."
        )
    return truth, prediction

"""`hsam score`: label volumes of any tool, scored as the evaluate stage scores its own.

Output: metrics.json, cases and organs as CSV and parquet (docs/evaluation.md).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.core import files
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.core.pool import over_cases
from pipeline.scoring import nnunet_folder, tables
from pipeline.scoring.conventions import STRICT
from pipeline.scoring.labels import read_pair
from pipeline.scoring.measures import Measures, measure_organs
from pipeline.scoring.organs import Organs, read_file_names, read_ignored, read_label_names
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
    truth: Path | None,
    prediction: Path,
    labels: Path | None,
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
            one mask file an organ; no truth: that of nnU-Net's summary.json, and its cases.
        labels: describes the organs' labels, of both folders unless `prediction_labels` is given;
            see `organs.read_label_names`, and `read_file_names` for mask files; None: the
            dataset.json of the predictions, or that beside the folder of the truth.
        out: folder to write to; other files in it stay.
        prediction_labels: describes those of the prediction; None: as in `labels`.
        convention: how empty masks count in `cases` and in the means of metrics.json, one of
            `conventions.CONVENTIONS`.
        names, cases: see `pairs.find_pairs`.
        jobs: how many processes score cases.

    Raises:
        UserError: folders, labels or volumes that can't be scored; lists every problem.
    """
    if truth is None:
        truth, listed = nnunet_folder.truth_of(prediction)
        cases = cases or listed
    pairs = {pair.case: pair for pair in find_pairs(truth, prediction, names, cases)}
    labels = labels or nnunet_folder.labels_of(truth, prediction)
    organs = _organs(labels, prediction_labels, pairs.values())
    score_one = partial(score_pair, *organs, _ignored(labels, pairs.values()))
    results, problems = over_cases(score_one, pairs, jobs, "score")
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
    _tell_nnunets_own(prediction, measured, organs[1])
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


def score_pair(
    truth: Organs, prediction: Organs, ignored: int | None, pair: LabelPair
) -> CaseResult:
    """Read and measure one case.

    Args:
        truth, prediction: organ to its labels, or to the names of its mask files.
        ignored: label of voxels without truth, which count as background on both sides.
        pair: the files.

    Raises:
        UserError: its volumes can't be read, hold no labels or lie on different grids.
    """
    true, predicted = read_pair(pair, truth, prediction)
    organs = {name: (true.organs[name], predicted.organs[name]) for name in truth}
    spacing = true.geometry.spacing[::-1]
    notes, array = [*true.notes, *predicted.notes], predicted.array
    if ignored in true.others:
        unknown = true.array == ignored
        array = np.where(unknown, array.dtype.type(0), array)
        notes.append(f"{unknown.mean():.0%} of its voxels have no truth and are not scored.")
    measured = measure_organs(true.array, array, organs, spacing)
    others = true.others - {ignored}
    said = tuple(f"{pair.case}: {note}" for note in notes)
    return CaseResult(measured, frozenset(others), predicted.others, said)


def _ignored(labels: Path, pairs: Iterable[LabelPair]) -> int | None:
    """The label of voxels without truth; masks have none."""
    return read_ignored(labels) if isinstance(next(iter(pairs)).truth, Path) else None


def _tell_nnunets_own(
    prediction: Path, measured: Mapping[str, Mapping[str, Measures]], organs: Organs
) -> None:
    """Say how the scores compare with those that nnU-Net has left beside its predictions."""
    found = nnunet_folder.differences(prediction, measured, organs)
    if found is None:
        return
    compared, differing = found
    if differing:
        say(
            f"warning: {prediction / nnunet_folder.SUMMARY}: nnU-Net's Dice is another in "
            f"{len(differing)} of {compared} pairs of case and organ; the first: {differing[0]}"
        )
    elif compared:
        say(f"score: nnU-Net's own Dice is the same in all {compared} pairs of case and organ")


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

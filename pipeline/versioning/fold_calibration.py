"""A model's calibration from evaluations of models that were trained alike, as over folds.

Each of these has not learned from the cases that it was tested on, so all cases of a data set can
calibrate a model that has learned from all of them. Its own doubt is taken to mean what theirs
did.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.core.run_folder import MODEL_FILES, read_provenance
from pipeline.inference import records
from pipeline.scoring import tables
from pipeline.scoring.calibration import Known, sentence
from pipeline.scoring.metrics_file import METRICS, read_metrics
from pipeline.scoring.predicted_dice import FEWEST, LEVEL, Pair, calibrate, judged, left_out

TABLE = "predicted_dice.parquet"
ALIKE = ("config", "class_names", "intensity", "preparation", "resizing")  # of model.json


@dataclass(frozen=True)
class OverFolds:
    """A calibration that isn't of a model's own evaluation.

    Attributes:
        known: the calibration.
        stage: whose labels it is of.
        note: how good it is on its own cases, each left out in turn; one line for people.
    """

    known: Known
    stage: str
    note: str


def over_folds(place: Path, record: Mapping[str, Any], source: Path) -> OverFolds:
    """Calibrate a model on the test cases of all evaluations in a folder.

    Args:
        place: folder of results, each with `evaluate` beside `train`, as an arm of a study has
            them.
        record: the content of the model's model.json.
        source: what people call the model.

    Raises:
        UserError: there is no evaluation, one isn't of the model beside it or that is another kind
            of model, or they have fewer than FEWEST cases.
    """
    found = sorted(path.parent for path in Path(place).rglob(TABLE))
    if not found:
        raise UserError(
            f"--calibrate {place}: expected evaluations ({TABLE}) in it, found none; name an arm "
            "of a study over folds, as results/folds/hsam."
        )
    pairs: list[Pair] = []
    stages: dict[str, Path] = {}
    for folder in found:
        _check_alike(folder, record, source)
        stages[read_metrics(folder / METRICS, evaluation=True)["stage"]] = folder
        pairs += tables.read_pairs(folder / TABLE)
    if len(stages) > 1:
        scored = " and ".join(f"{stage} ({folder})" for stage, folder in stages.items())
        raise UserError(f"--calibrate {place}: expected one scored stage, found {scored}.")
    calibration = calibrate(pairs)
    if calibration is None:
        raise UserError(
            f"--calibrate {place}: expected {FEWEST} cases or more in which an organ was "
            f"predicted, found {len({pair.case for pair in pairs})} in {len(found)} evaluations; "
            "add folds that test others."
        )
    models = f"{len(found)} models trained alike" if len(found) > 1 else "one model trained alike"
    known = Known(calibration, f"{calibration.cases} test cases of {models}")
    judgement = judged(left_out(pairs))
    about = {"level": LEVEL, "calibrated_on": known.source} | judgement
    return OverFolds(known, next(iter(stages)), sentence(about))


def _check_alike(folder: Path, record: Mapping[str, Any], source: Path) -> None:
    """UserError for an evaluation whose model isn't beside it, or isn't of the model's kind."""
    beside = folder.parent / "train"
    weights = beside / MODEL_FILES[1]
    evaluated = read_provenance(folder).get("inputs", {}).get(MODEL_FILES[1])
    if not weights.is_file() or files.sha256(weights) != evaluated:
        raise UserError(
            f"{folder}: expected the model that it evaluated in {beside}, found "
            f"{'another' if weights.is_file() else 'none'}; evaluate the run again."
        )
    other = records.read_record(beside)
    for field in ALIKE:
        if (expected := record.get(field)) != (got := other.get(field)):
            names, wanted, had = field, expected, got
            if isinstance(expected, dict) and isinstance(got, dict):
                key = next(k for k in {**expected, **got} if expected.get(k) != got.get(k))
                names, wanted, had = f"{field}: {key}", expected.get(key), got.get(key)
            raise UserError(
                f"{beside / MODEL_FILES[0]}: {names}: expected {wanted!r}, as {source} has it, "
                f"found {had!r}; only models trained alike tell how far to believe it."
            )

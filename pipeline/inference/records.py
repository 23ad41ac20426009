"""Finding a trained model and reading its record, without PyTorch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hsam.weights import record as model_json
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.core.run_folder import MODEL_FILES, SNAPSHOTS, read_provenance
from pipeline.core.trainings import find_model, has_model
from pipeline.imaging.geometry import recorded_preparation

RESIZINGS = ("linear", "published")  # by `inference.resizing`; the first where none is named
# where a model may lie below the folder that a user names: a run folder, or that of all results
PLACES = (".", "out", "train")


def model_folder(run: Path) -> Path:
    """The folder that holds MODEL_FILES: `run` itself, or one of PLACES in it.

    Raises:
        UserError: there is no model.
    """
    for place in PLACES:
        if has_model(folder := Path(run) / place):
            return folder
    raise UserError(
        f"{run}: expected a trained model ({' and '.join(MODEL_FILES)}) there, in out/ or in "
        "train/, found none; run the train stage, or name a run folder of training or an imported "
        "one."
    )


def model_folders(run: Path) -> list[Path]:
    """All models that a folder stands for: its own, from `model_folder`, or else those of the runs
    of a study's arm, such as its folds.

    Raises:
        UserError: there is none.
    """
    below = sorted(path for path in Path(run).glob("*/train") if has_model(path))
    own = any(has_model(Path(run) / place) for place in PLACES)
    return [model_folder(run)] if own or not below else below


def snapshots(folder: Path) -> dict[int, Path]:
    """Epochs done to the folder of the model that was kept then; empty where none was.

    Args:
        folder: of the trained model's files, from `model_folder`.
    """
    found = sorted((folder / SNAPSHOTS).glob("epoch-*"))
    return {int(path.name.removeprefix("epoch-")): path for path in found}


def earlier(folder: Path) -> dict[int, Path]:
    """Those of `snapshots` that aren't the model itself, as the last one may be."""
    weights = files.sha256(folder / MODEL_FILES[1])
    found = snapshots(folder).items()
    return {n: path for n, path in found if files.sha256(path / MODEL_FILES[1]) != weights}


def start_folder(start: str | None, runs: Path) -> Path | None:
    """The folder of the model that `train.start` names, None where it names none.

    Args:
        start: a run's name, or a folder of a model or of its evaluation.
        runs: folder of the run folders.

    Raises:
        UserError: no such run, or it isn't finished.
    """
    if start is None:
        return None
    try:
        return model_folder(find_model(Path(start), runs))
    except UserError as error:
        raise UserError([f"train.start: {problem}" for problem in error.problems]) from None


def read_record(folder: Path) -> dict[str, Any]:
    """The content of model.json, its preparation whole; UserError where it can't be read."""
    try:
        found = model_json.read_record(folder)
        resizing_name(found)  # refuses an unknown one
        if found.get("preparation") is not None:
            found["preparation"] = recorded_preparation(found["preparation"])
        return found
    except (FileNotFoundError, ValueError, TypeError) as error:
        raise UserError(
            f"{folder / MODEL_FILES[0]}: can't be read ({error}); train or import again."
        ) from None


def resizing_name(record: Mapping[str, Any]) -> str:
    """The resizing that a model's record (model.json) names; "linear" where it names none.

    Raises:
        ValueError: an unknown one.
    """
    name = record.get("resizing") or RESIZINGS[0]
    if name not in RESIZINGS:
        raise ValueError(f"resizing: expected one of {', '.join(RESIZINGS)}, found {name!r}")
    return str(name)


def pretraining(record: Mapping[str, Any], data_set: str | None) -> dict[str, Any] | None:
    """What a model's encoder had been trained on before, as records of results hold it.

    Args:
        record: the content of the model's model.json.
        data_set: name of the data that the model is scored on.

    Returns:
        trained_on: the images, in words; may_include_test: whether test images of the data set may
        be among them. None: the encoder's weights were random, or there is none.
    """
    found = model_json.pretraining(record)
    if found is None:
        return None
    seen = data_set in found["may_have_seen"]
    return {"trained_on": found["trained_on"], "may_include_test": seen}


def recorded_checkpoint(folder: Path) -> str | None:
    """Path of SAM's file that the model's training or import recorded, None without one."""
    # a snapshot lies two folders below its training's record
    found = read_provenance(folder) or read_provenance(folder.parent.parent)
    try:
        return found["params"]["train"]["sam_checkpoint"]
    except (KeyError, TypeError):
        return None

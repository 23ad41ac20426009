"""Which model a prediction is made with: its architecture, data, date and test scores."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.core.run_folder import IMPORT, MODEL_FILES, read_provenance
from pipeline.core.trainings import is_of
from pipeline.inference.records import pretraining

METRICS = "metrics.json"  # of an evaluation


def identify(folder: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """What identifies a model, as the records of predictions hold it.

    Args:
        folder: of the model's files.
        record: the content of its model.json.

    Returns:
        folder; model, backbone and image_size; data_set and what people call it, data_title, None
        where they aren't recorded; imported:
        whether it is a published checkpoint; written: when its file was written here, local time;
        pretraining: of the encoder, from `records.pretraining`; sha256: file to SHA-256; test:
        mean_dice, dice (organ to Dice), cases, stage and convention of its evaluation, None where
        none is found.
    """
    config, weights = record["config"], folder / MODEL_FILES[1]
    hashes = {name: files.sha256(folder / name) for name in MODEL_FILES}
    written = time.localtime(weights.stat().st_mtime)
    return {
        "folder": str(folder),
        "model": config["model"],
        "backbone": config.get("backbone"),
        "image_size": config["image_size"],
        "data_set": record.get("data_set"),
        "data_title": record.get("data_title") or record.get("data_set"),
        "pretraining": pretraining(record, record.get("data_set")),
        "imported": read_provenance(folder).get("stage") == IMPORT,
        "written": time.strftime("%Y-%m-%d %H:%M", written),
        "sha256": hashes,
        "test": _test_scores(folder, hashes),
    }


def sentence(identity: Mapping[str, Any]) -> str:
    """The identity in one line for people."""
    name = " ".join(filter(None, (identity["model"], identity["backbone"])))
    verb = "imported, of" if identity["imported"] else "trained on"
    data = identity["data_title"] or "data that its record doesn't name"
    before = identity["pretraining"]
    if before is not None:
        data += f", encoder pretrained on {before['trained_on']}"
    test = identity["test"]
    if test is None:
        scored = "no evaluation of it found"
    else:
        dice = "undefined" if test["mean_dice"] is None else f"{test['mean_dice']:.4f}"
        cases = f"{test['cases']} case" + "s" * (test["cases"] != 1)
        scored = f"test Dice {dice} ({test['stage']}, {cases}, {test['convention']})"
        if before is not None and before["may_include_test"]:
            scored += ", of images that may be among those of the pretraining"
    return (
        f"model {name} at {identity['image_size']} px, {verb} {data}, written "
        f"{identity['written']}, {scored}: {identity['folder']}, "
        f"{identity['sha256'][MODEL_FILES[1]][:12]}"
    )


def _test_scores(folder: Path, hashes: Mapping[str, str]) -> dict[str, Any] | None:
    """Scores of the newest evaluation of exactly these files that lies near the model."""
    for evaluation in evaluations(folder):
        try:
            if is_of(hashes, read_provenance(evaluation)):
                return _scores(files.read_json(evaluation / METRICS))
        except (FileNotFoundError, ValueError, KeyError, AttributeError, TypeError):
            continue  # a half-written or foreign folder says nothing
    return None


def _scores(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What identifies an evaluation; TypeError or KeyError where metrics.json isn't whole."""
    dice = metrics.get("mean_dice")  # a mean over no case has no entry
    whole = isinstance(dice, float | int | None) and isinstance(metrics["cases"], int)
    if not whole:
        raise TypeError("expected numbers")
    organs = dict(metrics.get("dice", {}))
    told = {key: metrics[key] for key in ("cases", "stage", "convention")}
    return {"mean_dice": dice, "dice": organs, **told}


def evaluations(folder: Path) -> Iterator[Path]:
    """Folders of evaluations beside a model's: of the same results, or among the run folders."""
    place = folder.absolute()
    yield place.parent / "evaluate"
    runs = [path.parent for path in place.parents[1].glob(f"*-evaluate-*/out/{METRICS}")]
    yield from sorted(runs, key=lambda path: (path / METRICS).stat().st_mtime, reverse=True)

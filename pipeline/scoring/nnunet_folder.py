"""What nnU-Net leaves beside its predictions: dataset.json, and its own scores in summary.json."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.files import read_json
from pipeline.scoring.conventions import apply_convention
from pipeline.scoring.measures import Measures
from pipeline.scoring.organs import Organs
from pipeline.scoring.predictions import DESCRIPTION

SUMMARY = "summary.json"
CONVENTION = "nnunet"
TOLERANCE = 1e-6  # between two computations of one Dice


def truth_of(prediction: Path) -> tuple[Path, list[str]]:
    """The folder of true labels that a folder's summary.json was computed with, and its cases.

    Raises:
        UserError: none is named, or it isn't there.
    """
    path = prediction / SUMMARY
    if not path.is_file():
        raise UserError(
            f"--truth: which folder has the true labels? {path}, which would name it, is not there."
        )
    entries = _entries(path)
    folders = {Path(str(entry.get("reference_file", ""))).parent for entry in entries}
    if len(folders) != 1 or not (folder := folders.pop()).is_dir():
        raise UserError(
            f"{path}: its true labels (reference_file) lie in no folder that is there; name their "
            "folder with --truth."
        )
    return folder, [_case(str(entry.get("prediction_file", ""))) for entry in entries]


def labels_of(truth: Path, prediction: Path) -> Path:
    """The dataset.json of a folder of predictions, or else that beside the folder of true labels.

    Raises:
        UserError: neither is there.
    """
    places = [prediction / DESCRIPTION, truth.parent / DESCRIPTION]
    if (found := next((path for path in places if path.is_file()), None)) is None:
        raise UserError(
            f"--labels: which labels do the organs have? Neither {places[0]} nor {places[1]} is "
            "there; name a file that says it."
        )
    return found


def differences(
    prediction: Path, measured: Mapping[str, Mapping[str, Measures]], organs: Organs
) -> tuple[int, list[str]] | None:
    """Where nnU-Net's own Dice, in summary.json, is another than ours.

    Args:
        prediction: the folder.
        measured: case to organ to what was measured.
        organs: organ to its labels in the predictions.

    Returns:
        How many pairs of case and organ both have scored, and a sentence on each that differs;
        None without a summary.json.

    Raises:
        UserError: it can't be read.
    """
    path = prediction / SUMMARY
    if not path.is_file():
        return None
    compared, found = 0, []
    for entry in _entries(path):
        case = _case(str(entry.get("prediction_file", "")))
        metrics = entry.get("metrics", {})
        for organ, labels in organs.items():
            theirs = metrics.get(_key(labels), {}).get("Dice")
            if case not in measured or not isinstance(theirs, int | float):
                continue
            ours = apply_convention(measured[case][organ], CONVENTION)["dice"]
            compared += 1
            if math.isnan(theirs) and math.isnan(ours):
                continue
            if not abs(theirs - ours) <= TOLERANCE:
                found.append(f"{case}: {organ}: Dice {ours:.4f}, {SUMMARY} says {theirs:.4f}.")
    return compared, found


def _entries(path: Path) -> list[dict[str, Any]]:
    try:
        entries = read_json(path)["metric_per_case"]
        whole = isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(
            f"{path}: expected nnU-Net's scores, a list metric_per_case; remove it, or run "
            "nnUNetv2_evaluate_folder again."
        )
    found: list[dict[str, Any]] = entries
    return found


def _case(file: str) -> str:
    """The case that a file is of, on whatever system its path was written."""
    name = file.replace("\\", "/").rpartition("/")[2]
    return name.removesuffix(".gz").rpartition(".")[0]


def _key(labels: tuple[int, ...] | tuple[str, ...]) -> str:
    """A label, or a region's labels, as nnU-Net writes them into JSON."""
    return str(labels[0]) if len(labels) == 1 else str(tuple(labels))

"""A model's folder as it is handed on: its files, calibration and card, and the hashes of all."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.core.errors import UserError, few
from pipeline.core.run_folder import MODEL_FILES
from pipeline.inference import records
from pipeline.inference.card import card, predicting
from pipeline.inference.identity import evaluations
from pipeline.scoring import calibration
from pipeline.versioning.fold_calibration import OverFolds

CARD, SUMS = "README.md", "SHA256SUMS"  # the latter as `sha256sum --check` reads it
FILES = (*MODEL_FILES, calibration.CALIBRATION, CARD)  # all that a folder may hold besides
LINE = re.compile(r"([0-9a-f]{64})  (\S+)")


def write(
    new: Path,
    folder: Path,
    record: Mapping[str, Any],
    name: str,
    calibrated: OverFolds | None = None,
) -> None:
    """Fill an empty folder.

    Args:
        new: the folder.
        folder: of the model's files, near which its evaluation may lie.
        record: the content of its model.json.
        name: of the model, for the card.
        calibrated: instead of the calibration of its evaluation.
    """
    for file in MODEL_FILES:
        shutil.copyfile(folder / file, new / file)
    weights = files.sha256(folder / MODEL_FILES[1])
    if calibrated is not None:
        calibration.write(
            new / calibration.CALIBRATION, calibrated.known, calibrated.stage, weights
        )
    elif found := calibration.file_of([folder, *evaluations(folder)], weights):
        shutil.copyfile(found, new / calibration.CALIBRATION)
    files.write_text(new / CARD, card(folder, record, name, predicting(record, name)))
    names = [file for file in FILES if (new / file).exists()]
    lines = [f"{files.sha256(new / file)}  {file}\n" for file in names]
    files.write_text(new / SUMS, "".join(lines))


def listed(folder: Path, source: str) -> dict[str, str]:
    """The files of a folder and their SHA-256, as its list says.

    Args:
        folder: that holds SUMS.
        source: what people call the folder.

    Raises:
        UserError: there is no such list, or it lists something else than a model.
    """
    try:
        lines = files.read_text(folder / SUMS).splitlines()
    except (OSError, ValueError):
        raise _no_model(source, "no such list") from None
    matches = [LINE.fullmatch(line) for line in lines]
    found = {match[2]: match[1] for match in matches if match is not None}
    if others := [name for name in found if name not in FILES]:
        raise _no_model(source, few(others))
    if len(found) < len(lines) or not set(MODEL_FILES) <= set(found):
        raise _no_model(source, few(found) or "none of them")
    return found


def check(folder: Path, sums: Mapping[str, str], source: str) -> dict[str, Any]:
    """Compare files with their hashes; gives the content of model.json.

    Raises:
        UserError: a file is missing or another, or model.json can't be read.
    """
    problems = []
    for name, expected in sums.items():
        if not (folder / name).is_file():
            problems.append(f"{source}: expected {name}, found none; push it again.")
        elif (found := files.sha256(folder / name)) != expected:
            problems.append(
                f"{source}: {name}: expected SHA-256 {expected[:12]}, found {found[:12]}; it was "
                "damaged or changed: push it again."
            )
    if problems:
        raise UserError(problems)
    return records.read_record(folder)


def _no_model(source: str, found: str) -> UserError:
    names = " and ".join(MODEL_FILES)
    return UserError(
        f"{source}: expected a model as hsam push leaves it, {SUMS} with {names}, found {found}; "
        "name another, or push it again."
    )

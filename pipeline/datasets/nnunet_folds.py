"""nnU-Net's file of folds, `splits_final.json`: a list of {train: case ids, val: case ids}."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.core.errors import UserError, few

FOLDS = "splits_final.json"
PREPROCESSED = "nnUNet_preprocessed"  # where nnU-Net keeps it, beside nnUNet_raw


def content(training: Sequence[str], validation: Sequence[str]) -> list[dict[str, list[str]]]:
    """The file's content for one fold. nnU-Net has to validate on something, so that without
    validation cases it is the training cases.
    """
    return [{"train": list(training), "val": list(validation or training)}]


def find(root: Path) -> Path | None:
    """The file of a raw data set: in its folder, or where nnU-Net keeps it; None: there is none."""
    root = root.resolve()
    places = (root, root.parent.parent / PREPROCESSED / root.name)
    return next((path for place in places if (path := place / FOLDS).is_file()), None)


def read(path: Path, cases: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The cases that each fold validates on, a case in one fold at most.

    Args:
        path: of the file.
        cases: that there are.

    Returns:
        Empty where the folds aren't those of a cross-validation: one trains on cases that it
        validates on.

    Raises:
        UserError: another content, or other cases than those that there are.
    """
    advice = "mend it, or remove it to have cases drawn"
    try:
        folds = [(_ids(fold["train"]), _ids(fold["val"])) for fold in files.read_json(path)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: expected a list of folds, each with case ids in train and val "
            f"({type(error).__name__}: {' '.join(str(error).split())}); {advice}."
        ) from None
    if any(set(train) & set(val) for train, val in folds):
        return ()
    validated = [case for _, val in folds for case in val]
    if unknown := sorted({*validated, *(c for train, _ in folds for c in train)} - set(cases)):
        raise UserError(
            f"{path}: names {len(unknown)} cases that aren't there ({few(unknown)}); {advice}."
        )
    if not folds or not all(val for _, val in folds) or len(set(validated)) < len(validated):
        raise UserError(f"{path}: expected a case in one fold's val, and some in each; {advice}.")
    return tuple(val for _, val in folds)


def _ids(found: Any) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(case, str) for case in found):
        raise TypeError(f"expected case ids, found {str(found)[:80]}")
    return tuple(found)

"""Finding and loading a trained model, as the train stage or an import wrote it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from hsam.model import SegmentationModel
from hsam.weights import storage
from pipeline.core.errors import UserError
from pipeline.core.run_folder import read_provenance

MODEL_FILES = ("model.json", "model.safetensors")
# where a model may lie below the folder that a user names: a run folder, or that of all results
PLACES = (".", "out", "train")


def model_folder(run: Path) -> Path:
    """The folder that holds MODEL_FILES: `run` itself, or one of PLACES in it.

    Raises:
        UserError: there is no model.
    """
    for place in PLACES:
        folder = Path(run) / place
        if all((folder / name).is_file() for name in MODEL_FILES):
            return folder
    raise UserError(
        f"{run}: expected a trained model ({' and '.join(MODEL_FILES)}) there, in out/ or in "
        "train/, found none; run the train stage, or name a run folder of training or an imported "
        "one."
    )


def read_record(folder: Path) -> dict[str, Any]:
    """The content of model.json; UserError where it can't be read."""
    try:
        return storage.read_record(folder)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(
            f"{folder / MODEL_FILES[0]}: can't be read ({error}); train or import again."
        ) from None


def load_model(
    folder: Path, checkpoint: str | Path | None, device: str, option: str = "--checkpoint"
) -> SegmentationModel:
    """Load a model.

    Args:
        folder: of the model's files, from `model_folder`.
        checkpoint: SAM's file with the weights of a frozen encoder; None: the file that the
            training or import recorded.
        device: "cpu" or "cuda".
        option: the option or parameter that names SAM's file, for messages.

    Returns:
        The model in eval mode on the device.

    Raises:
        UserError: files that don't fit together, or SAM's file is needed and missing or another.
    """
    record = read_record(folder)
    needed = record["needs_sam_checkpoint"]
    chosen = _sam_checkpoint(folder, record, checkpoint, option) if needed else None
    try:
        return storage.load(folder, sam_checkpoint=chosen, device=device)
    except (FileNotFoundError, ValueError, SafetensorError) as error:
        named = "" if chosen is None else f", {option} naming the SAM file that it was trained on"
        raise UserError(
            f"{folder / MODEL_FILES[1]}: can't be loaded ({error}); train or import again{named}."
        ) from None


def recorded_checkpoint(folder: Path) -> str | None:
    """Path of SAM's file that the model's training or import recorded, None without one."""
    try:
        return read_provenance(folder)["params"]["train"]["sam_checkpoint"]
    except (KeyError, TypeError):
        return None


def _sam_checkpoint(
    folder: Path, record: Mapping[str, Any], given: str | Path | None, option: str
) -> Path:
    """SAM's file, given or recorded; UserError where it isn't there."""
    chosen = given or recorded_checkpoint(folder)
    if chosen is None or not Path(chosen).is_file():
        where = f"there is no file {chosen}" if chosen else "none is recorded"
        raise UserError(
            f"{folder}: the model's frozen encoder is in SAM's file with SHA-256 "
            f"{record['sam_sha256']}, {where}; name it with {option}."
        )
    return Path(chosen)

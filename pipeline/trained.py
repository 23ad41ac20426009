"""A trained model as the train stage or an import left it: finding it, and loading it."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

import hsam
from pipeline import files
from pipeline.errors import UserError
from pipeline.run_folder import PROVENANCE

MODEL_FILES = ("model.json", "model.safetensors")
# below what a user names: a run folder's outputs, or the results of all stages
PLACES = (".", "out", "train")


def model_folder(run: Path) -> Path:
    """The folder with the model's files: the one named, or `out` or `train` in it.

    Raises:
        UserError: no model there.
    """
    for place in PLACES:
        folder = Path(run) / place
        if all((folder / name).is_file() for name in MODEL_FILES):
            return folder
    raise UserError(
        f"{run}: expected a trained model ({' and '.join(MODEL_FILES)}) there, in out/ or in "
        "train/, found none; name a run folder of training, results/train or an imported one."
    )


def read_record(folder: Path) -> dict[str, Any]:
    """What model.json says; UserError when it can't be read."""
    try:
        return hsam.read_record(folder)
    except (FileNotFoundError, ValueError) as error:
        raise UserError(
            f"{folder / MODEL_FILES[0]}: can't be read ({error}); train or import again."
        ) from None


def sam_checkpoint(folder: Path, given: Path | None) -> Path | None:
    """SAM's file for a model: the one given, else the one its training or import recorded.

    None where the model needs none.

    Raises:
        UserError: it needs one and none is there.
    """
    record = read_record(folder)
    if not record["needs_sam_checkpoint"]:
        return None
    recorded = recorded_checkpoint(folder)
    chosen = given or recorded
    if chosen is None or not Path(chosen).is_file():
        where = f"there is no file {chosen}" if chosen else "none is recorded"
        raise UserError(
            f"{folder}: the model's frozen encoder is in SAM's file with SHA-256 "
            f"{record['sam_sha256']}, {where}; name it with --checkpoint."
        )
    return Path(chosen)


def load_model(folder: Path, checkpoint: Path | None, device: str) -> hsam.SegmentationModel:
    """The model in eval mode on the device.

    Raises:
        UserError: files that don't fit together, or another SAM file.
    """
    try:
        return hsam.load(folder, sam_checkpoint=checkpoint, device=device)
    except (FileNotFoundError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder / MODEL_FILES[1]}: can't be loaded ({error}).") from None


def recorded_checkpoint(folder: Path) -> str | None:
    """SAM's file that a model's training or import names, None where it names none."""
    try:
        return files.read_json(folder / PROVENANCE)["params"]["train"]["sam_checkpoint"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None

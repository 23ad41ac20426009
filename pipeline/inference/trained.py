"""Loading a trained model, as the train stage or an import wrote it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from hsam.backbones import HUGGING_FACE, known_by_sha256
from hsam.hugging_face import weights_file
from hsam.inference import for_inference
from hsam.model import SegmentationModel
from hsam.weights import storage
from pipeline.core import cpus, weight_files
from pipeline.core.errors import UserError
from pipeline.core.run_folder import MODEL_FILES
from pipeline.inference.precision import Precision, inference_precision, set_tf32
from pipeline.inference.records import read_record, recorded_checkpoint
from pipeline.inference.resizing import Resizing, resizing


def model_precision(record: Mapping[str, Any], device: str) -> Precision:
    """The precision that a model predicts in; `record` is the content of its model.json."""
    encoder = "backbone" in record["config"]
    return inference_precision(device) if encoder else Precision("fp32")


@dataclass(frozen=True, eq=False)
class Ready:
    """A trained model, ready to predict.

    Attributes:
        model: on its device, in eval mode, LoRA merged.
        precision: the arithmetic that it predicts in.
        resizing: how slices come to its side, and its answers back.
    """

    model: SegmentationModel
    precision: Precision
    resizing: Resizing


def load_for_inference(
    folder: Path, checkpoint: str | Path | None, device: str, option: str = "--checkpoint"
) -> Ready:
    """Load a model to predict with: evaluation and prediction have the same one from here.

    Args, raises: as for `load_model`.
    """
    if device == "cpu":
        cpus.keep_freed_memory()
    # on the CPU first: only what predicts takes the GPU's memory
    model = load_model(folder, checkpoint, "cpu", option)
    record = read_record(folder)
    precision = model_precision(record, device)
    set_tf32(precision.tf32)
    model = for_inference(model, device, half_encoder=precision.encoder == "bf16")
    return Ready(model.requires_grad_(False), precision, resizing(record))


def load_model(
    folder: Path, checkpoint: str | Path | None, device: str, option: str = "--checkpoint"
) -> SegmentationModel:
    """Load a model.

    Args:
        folder: of the model's files, from `records.model_folder`.
        checkpoint: SAM's file with the weights of a frozen encoder, or the folder of one in
            Hugging Face form; None: the file that the training or import recorded.
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
        named = "" if chosen is None else f", {option} naming the file that it was trained on"
        raise UserError(
            f"{folder / MODEL_FILES[1]}: can't be loaded ({error}); train or import again{named}."
        ) from None


def _sam_checkpoint(
    folder: Path, record: Mapping[str, Any], given: str | Path | None, option: str
) -> Path:
    """SAM's file, given or found by the record; UserError where it isn't there."""
    recorded, digest = recorded_checkpoint(folder), record["sam_sha256"]
    if (backbone := record["config"]["backbone"]).startswith(HUGGING_FACE):
        try:
            return weights_file(given or backbone)
        except ValueError as error:
            raise UserError(
                f"{folder}: the model's frozen encoder is in the weight file with SHA-256 {digest} "
                f"({error}); name its folder with {option}."
            ) from None
    chosen = weight_files.of_run(digest, recorded) if given is None else Path(given)
    if chosen is not None and chosen.is_file():
        return chosen
    known = known_by_sha256(digest)
    if (missing := given or recorded) in (None, weight_files.AUTO):
        where = "none is recorded" if known is None else f"{known[1].name}, which isn't here"
    else:
        where = f"there is no file {missing}"
    get = "" if known is None else f"{weight_files.how_to_get(known[0])}, or "
    raise UserError(
        f"{folder}: the model's frozen encoder is in SAM's file with SHA-256 {digest}, {where}; "
        f"{get}name it with {option}."
    )

"""Saving and loading models: a folder with `model.json` and `model.safetensors`.

The JSON has all that is needed to build the model. The weights of a frozen encoder are not stored,
as SAM's checkpoint has them; such a folder takes a few megabytes.
"""

import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from hsam.hugging_face import weights_file
from hsam.lora import lora_layers
from hsam.model import SegmentationModel
from hsam.registry import build
from hsam.version import __version__
from hsam.weights.files import check_finite, listed, sha256
from hsam.weights.foreign import text_instead
from hsam.weights.record import FORMAT, JSON_NAME, pretraining, read_record

TENSORS_NAME = "model.safetensors"


def save(
    model: SegmentationModel,
    folder: str | Path,
    *,
    class_names: list[str] | None = None,
    intensity: dict[str, Any] | list[dict[str, Any]] | None = None,
    preparation: dict[str, Any] | None = None,
    resizing: str | None = None,
    data_set: str | None = None,
    data_title: str | None = None,
    usual: dict[str, Any] | None = None,
) -> Path:
    """Save a model.

    Args:
        model: built by this library.
        folder: created if missing; existing files are replaced.
        class_names: names of the organs in class order, without the background.
        intensity: how voxel values were mapped to [0, 1], as JSON values; stored as given.
        preparation: how slices were prepared otherwise, as JSON values; stored as given.
        resizing: how slices come to the model's side and back; stored as given.
        data_set: name of the data that it was trained on; stored as given.
        data_title: what people call these data; stored as given.
        usual: what its training slices look like, as JSON values; stored as given.

    Returns:
        the folder.

    Raises:
        ValueError: a merged LoRA, a model without config, or a wrong number of class names.
    """
    if not model.config:
        raise ValueError("model: expected one from hsam.build, got one without config")
    if any(layer.merged for layer in lora_layers(model)):
        raise ValueError("model: expected an unmerged LoRA; call hsam.unmerge_lora(model) first")
    if class_names is not None and len(class_names) != model.classes - 1:
        raise ValueError(f"class_names: expected {model.classes - 1}, got {len(class_names)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.detach().cpu().contiguous() for name, t in stored_tensors(model).items()}
    record = {
        "format": FORMAT,
        "hsam_version": __version__,
        "config": model.config,
        "class_names": class_names,
        "intensity": intensity,
        "preparation": preparation,
        "resizing": resizing,
        "data_set": data_set,
        "data_title": data_title,
        "usual": usual,
        "sam_sha256": model.sam_sha256,
        "pretraining": pretraining({"sam_sha256": model.sam_sha256}),
        "needs_sam_checkpoint": _needs_sam(model),
        "trainable_parameters": model.count_trainable(),
    }
    text = json.dumps(record, indent=2) + "\n"
    _replace(folder / TENSORS_NAME, safetensors.torch.save(tensors))
    _replace(folder / JSON_NAME, text.encode())
    return folder


def load(
    folder: str | Path, *, sam_checkpoint: str | Path | None = None, device: str = "cpu"
) -> SegmentationModel:
    """Load a model that `save` wrote.

    Args:
        folder: the folder.
        sam_checkpoint: the file that the model was trained from; needed if its encoder was frozen.
            For an encoder in Hugging Face form its folder will do, and None names the one that
            the training read.
        device: device of the model.

    Returns:
        the model, in eval mode.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: a SAM file with another SHA-256, tensors that don't fit the JSON, or NaN.
    """
    record = read_record(folder)
    needs_sam = record["needs_sam_checkpoint"]
    if needs_sam:
        if record["config"].get("hugging_face") is not None:
            sam_checkpoint = weights_file(sam_checkpoint or record["config"]["backbone"])
        if sam_checkpoint is None:
            raise ValueError(
                f"sam_checkpoint: expected the file with SHA-256 {record['sam_sha256']}, got none"
            )
        if (found := sha256(sam_checkpoint)) != record["sam_sha256"]:
            raise ValueError(
                f"sam_checkpoint: expected SHA-256 {record['sam_sha256']}, got {found}"
            )
    arguments = dict(record["config"])
    if needs_sam:
        arguments["sam_checkpoint"] = sam_checkpoint
    try:
        model = build(arguments.pop("model"), **arguments)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{Path(folder) / JSON_NAME}: config: {error}") from None
    model.sam_sha256 = record["sam_sha256"]
    path, tensors = Path(folder) / TENSORS_NAME, read_tensors(folder)
    expected = stored_tensors(model)
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in expected]
    problems += [
        f"{name}: expected {tuple(expected[name].shape)}, got {tuple(tensor.shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if problems:
        raise ValueError(f"{path} doesn't fit: {listed(problems, '; ')}")
    model.load_state_dict(tensors, strict=False)
    return model.to(device).eval()


def read_tensors(folder: str | Path) -> dict[str, Tensor]:
    """The tensors of a saved model by their names, on the CPU.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: something else than weights, or NaN.
    """
    path = Path(folder) / TENSORS_NAME
    if (other := text_instead(path)) is not None:
        raise ValueError(f"{path}: expected weights, found {other}")
    tensors = safetensors.torch.load_file(path)
    check_finite(tensors, path)
    return tensors


def stored_tensors(model: SegmentationModel) -> dict[str, Tensor]:
    """The tensors that `save` stores: all but those of a frozen encoder with SAM's weights."""
    state = model.state_dict()
    if not _needs_sam(model):
        return state
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    return {
        name: tensor
        for name, tensor in state.items()
        if not (name.startswith("image_encoder.") and name in frozen)
    }


def _needs_sam(model: SegmentationModel) -> bool:
    """Whether the encoder has SAM's weights and is frozen, so that they needn't be stored."""
    return model.sam_sha256 is not None and not model.config.get("train_encoder", True)


def _replace(path: Path, data: bytes) -> None:
    """Write to a temporary file and rename it, so that no half-written file is seen."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    os.replace(temporary, path)

"""Models on disk: a folder with `model.json` and `model.safetensors`.

The JSON alone says how to build the model; the tensors are those that the SAM checkpoint can't give
back. So the folder of a model with a frozen encoder is megabytes, not the base.
"""

import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from hsam.lora import lora_layers
from hsam.model import SegmentationModel
from hsam.registry import build
from hsam.version import __version__
from hsam.weights.files import sha256

FORMAT = 1
JSON_NAME, TENSORS_NAME = "model.json", "model.safetensors"


def save(
    model: SegmentationModel,
    folder: str | Path,
    *,
    class_names: list[str] | None = None,
    intensity: dict[str, Any] | None = None,
    preparation: dict[str, Any] | None = None,
) -> Path:
    """Write a model.

    Args:
        model: built by this library.
        folder: made if it isn't there; both files are replaced.
        class_names: names of the organs in class order, without the background.
        intensity: rule that turns stored values into [0, 1]; kept as it is, JSON-ready.
        preparation: how else slices were brought to the model; kept as it is, JSON-ready.

    Returns:
        the folder.

    Raises:
        ValueError: a merged LoRA, a model without config, or another number of names than organs.
    """
    if not model.config:
        raise ValueError("model: expected one from hsam.build, got one without config")
    if any(layer.merged for layer in lora_layers(model)):
        raise ValueError("model: expected an unmerged LoRA; call hsam.unmerge_lora(model) first")
    if class_names is not None and len(class_names) != model.classes - 1:
        raise ValueError(f"class_names: expected {model.classes - 1}, got {len(class_names)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: t.detach().cpu().contiguous() for name, t in own_tensors(model).items()}
    record = {
        "format": FORMAT,
        "hsam_version": __version__,
        "config": model.config,
        "class_names": class_names,
        "intensity": intensity,
        "preparation": preparation,
        "sam_sha256": model.sam_sha256,
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
    """Read a model that `save` wrote, in eval mode.

    Args:
        folder: what `save` was given.
        sam_checkpoint: the SAM file the model was trained on; needed where its encoder was frozen.
        device: where to put the model.

    Returns:
        the model; `read_record(folder)` has its class names and intensity rule.

    Raises:
        FileNotFoundError: no such folder or file.
        ValueError: another SAM file than the one trained on, or files that don't fit together.
    """
    record = read_record(folder)
    needs_sam = record["needs_sam_checkpoint"]
    if needs_sam:
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
    model = build(arguments.pop("model"), **arguments)
    model.sam_sha256 = record["sam_sha256"]
    tensors = safetensors.torch.load_file(Path(folder) / TENSORS_NAME)
    expected = own_tensors(model)
    problems = [f"missing {name}" for name in expected if name not in tensors]
    problems += [f"unexpected {name}" for name in tensors if name not in expected]
    problems += [
        f"{name}: expected {tuple(expected[name].shape)}, got {tuple(tensor.shape)}"
        for name, tensor in tensors.items()
        if name in expected and tensor.shape != expected[name].shape
    ]
    if problems:
        raise ValueError(f"{Path(folder) / TENSORS_NAME} doesn't fit: " + "; ".join(problems))
    model.load_state_dict(tensors, strict=False)
    return model.to(device).eval()


def read_record(folder: str | Path) -> dict[str, Any]:
    """The JSON beside a model's tensors: config, class names, intensity rule, provenance.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a format that this version doesn't know.
    """
    path = Path(folder) / JSON_NAME
    if not path.is_file():
        raise FileNotFoundError(f"model folder: expected {path}, found none")
    record: dict[str, Any] = json.loads(path.read_text())
    if record.get("format") != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, got {record.get('format')!r}")
    return record


def own_tensors(model: SegmentationModel) -> dict[str, Tensor]:
    """The tensors of a model that its SAM checkpoint can't give back."""
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
    """Whether the frozen encoder came from a SAM checkpoint, so that it needn't be stored."""
    return model.sam_sha256 is not None and not model.config.get("train_encoder", True)


def _replace(path: Path, data: bytes) -> None:
    """Write under a temporary name, then rename, so that no half-written file is ever found."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    os.replace(temporary, path)

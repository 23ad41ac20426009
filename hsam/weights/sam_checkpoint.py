"""Loading checkpoints of SAM's form, Meta's, MedSAM's or LiteMedSAM's, at any image size.

Source: paper section 4 (SAM's weights at 224 and 512 px); segment_anything/build_sam.py.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from hsam.backbones import BACKBONES
from hsam.lora import unmerge_lora
from hsam.model import EncodedModel
from hsam.weights.files import listed, read_tensors, sha256

# prefixes of names in the file -> in the model
_PREFIXES = {
    "image_encoder.": "image_encoder.",
    "prompt_encoder.": "prompt_encoder.",
    "mask_decoder.": "coarse_decoder.",
}
# their shapes depend on the number of classes
_NEW = re.compile(r"^mask_decoder\.(mask_tokens|output_hypernetworks_mlps|iou_prediction_head)\.")


@dataclass
class LoadReport:
    """What became of each tensor of a file and of the model.

    Attributes:
        loaded: the model's tensors that have the file's values.
        resized: the model's tensors that have the file's values, interpolated to another grid.
        new: the model's tensors that aren't in the file; they keep their values.
        unused: the file's tensors that the model doesn't use.
    """

    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def load_sam_checkpoint(model: EncodedModel, path: str | Path) -> LoadReport:
    """Load SAM's image encoder, prompt encoder and mask decoder into a model.

    What depends on the image side is brought to the model's, as the encoder's family does it
    (`ImageEncoder.fitted`). Mask tokens, class MLPs and IoU head are not loaded, as their shapes
    depend on the number of classes. A merged LoRA is unmerged first.

    Args:
        model: a model with an image encoder; SAM's mask decoder becomes its coarse decoder.
        path: a file such as sam_vit_b_01ec64.pth or lite_medsam.pth.

    Returns:
        what became of each tensor of the file and of the model.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no SAM checkpoint, one of another backbone, one with NaN, or one with missing,
            unexpected or misshapen tensors; the first ones are named.
    """
    state = read_tensors(path)
    _check_kind(model, state, path)
    unmerge_lora(model)
    target = model.state_dict()
    report, problems = LoadReport(), []
    values: dict[str, Tensor] = {}
    for key, value in state.items():
        prefix = next((p for p in _PREFIXES if key.startswith(p)), None)
        name = _PREFIXES[prefix] + key.removeprefix(prefix) if prefix else None
        if prefix is None:
            problems.append(f"unexpected {key}")
        elif _NEW.match(key) or (prefix == "mask_decoder." and name not in target):
            report.unused.append(key)
        elif name not in target:
            problems.append(f"unexpected {key}")
        elif value.shape == target[name].shape:
            values[name] = value
            report.loaded.append(name)
        elif (resized := _resized(model, name, value, target[name].shape)) is not None:
            values[name] = resized
            report.resized.append(name)
        elif prefix == "mask_decoder.":
            report.unused.append(key)
        else:
            problems.append(
                f"{key}: expected {tuple(target[name].shape)}, got {tuple(value.shape)}"
            )
    report.new = [name for name in target if name not in values]
    problems += [f"missing {name}" for name in report.new if _must_load(name)]
    if problems:
        raise ValueError(f"SAM checkpoint {path} doesn't fit: {listed(problems, '; ')}")
    with torch.no_grad():
        for name, value in values.items():
            target[name].copy_(value)
    model.sam_sha256, model.pretrained = sha256(path), frozenset(values)
    return report


def _must_load(name: str) -> bool:
    """Whether a SAM checkpoint has to provide this tensor of the model."""
    added = (".a_q", ".b_q", ".a_v", ".b_v")
    if name.startswith("image_encoder."):
        return not name.endswith(added) and ".adapter" not in name
    return name.startswith("prompt_encoder.")


def _resized(model: EncodedModel, name: str, value: Tensor, shape: torch.Size) -> Tensor | None:
    """A tensor of the encoder, brought to this image side; None: it doesn't depend on one."""
    part, _, name = name.partition(".")
    return model.image_encoder.fitted(name, value, shape) if part == "image_encoder" else None


def _check_kind(model: EncodedModel, state: dict[str, Tensor], path: str | Path) -> None:
    """Raise a ValueError for a file of another image encoder."""
    if not isinstance(model, EncodedModel):
        raise ValueError("model: expected one with an image encoder, got one without")
    encoder = model.image_encoder
    expected, found = encoder.kind(), encoder.kind_in(state)
    if found is None:
        others = (line.load_family().kind_in(state) for line in BACKBONES.values())
        found = next((kind for kind in others if kind is not None), None)
    if found is None:
        raise ValueError(
            f"{path}: expected a checkpoint of {expected}, found no image encoder in it"
        )
    if found != expected:
        raise ValueError(f"{path}: expected weights for {expected}, got those of {found}")

"""Loading Meta's SAM checkpoints, made for 1024 px, into models of any image size.

Source: paper section 4 (SAM's weights at 224 and 512 px); segment_anything/build_sam.py.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hsam.backbones import BACKBONES
from hsam.lora import unmerge_lora
from hsam.model import SegmentationModel
from hsam.weights.files import listed, read_tensors, sha256

# prefixes of names in the file -> in the model
_PREFIXES = {
    "image_encoder.": "image_encoder.",
    "prompt_encoder.": "prompt_encoder.",
    "mask_decoder.": "coarse_decoder.",
}
# their shapes depend on the number of classes
_NEW = re.compile(r"^mask_decoder\.(mask_tokens|output_hypernetworks_mlps|iou_prediction_head)\.")
_REL_POS = re.compile(r"^image_encoder\.blocks\.\d+\.attn\.rel_pos_[hw]$")
_BLOCK = re.compile(r"^image_encoder\.blocks\.(\d+)\.")


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


def load_sam_checkpoint(model: SegmentationModel, path: str | Path) -> LoadReport:
    """Load SAM's image encoder, prompt encoder and mask decoder into a model.

    `pos_embed` and the relative positions of global blocks are interpolated bilinearly to the
    model's grid. Mask tokens, class MLPs and IoU head are not loaded, as their shapes depend on the
    number of classes. A merged LoRA is unmerged first.

    Args:
        model: a model with SAM's image encoder; SAM's mask decoder becomes its coarse decoder.
        path: a file such as sam_vit_b_01ec64.pth.

    Returns:
        what became of each tensor of the file and of the model.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no SAM checkpoint, one of another backbone, one with NaN, or one with missing,
            unexpected or misshapen tensors; the first ones are named.
    """
    state = read_tensors(path)
    _check_backbone(model, state, path)
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
        elif (resized := _resize(key, value, target[name].shape)) is not None:
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
    model.sam_sha256 = sha256(path)
    return report


def _must_load(name: str) -> bool:
    """Whether a SAM checkpoint has to provide this tensor of the model."""
    added = (".a_q", ".b_q", ".a_v", ".b_v")
    if name.startswith("image_encoder."):
        return not name.endswith(added) and ".adapter" not in name
    return name.startswith("prompt_encoder.")


def _resize(key: str, value: Tensor, shape: torch.Size) -> Tensor | None:
    """Interpolate positions to another grid; None: a tensor without a grid, or of another width."""
    if key == "image_encoder.pos_embed" and value.shape[-1] == shape[-1]:
        # 1 x H x W x dim -> 1 x dim x H x W and back
        grid = value.permute(0, 3, 1, 2).float()
        grid = F.interpolate(grid, size=shape[1:3], mode="bilinear", align_corners=False)
        return grid.permute(0, 2, 3, 1)
    if _REL_POS.match(key) and value.shape[-1] == shape[-1]:
        table = value.float()[None, None]  # 1 x 1 x rows x d
        return F.interpolate(table, size=tuple(shape), mode="bilinear", align_corners=False)[0, 0]
    return None


def _check_backbone(model: SegmentationModel, state: dict[str, Tensor], path: str | Path) -> None:
    """Raise a ValueError for a file of another backbone."""
    if not hasattr(model, "image_encoder"):
        raise ValueError("model: expected one with SAM's image encoder, got one without")
    position = state.get("image_encoder.pos_embed")
    if position is None or position.ndim != 4:
        raise ValueError(f"{path}: expected a SAM checkpoint, found no image_encoder.pos_embed")
    found = (
        position.shape[-1],
        1 + max((int(match[1]) for key in state if (match := _BLOCK.match(key))), default=-1),
    )
    encoder: Any = model.image_encoder
    expected = encoder.pos_embed.shape[-1], len(encoder.blocks)
    if found != expected:
        raise ValueError(
            f"{path}: expected weights for {_name(*expected)}, got those of {_name(*found)}"
        )


def _name(dim: int, depth: int) -> str:
    """Name, width and depth of a backbone."""
    known = {(b.embed_dim, b.depth): name for name, b in BACKBONES.items()}
    return f"{known.get((dim, depth), 'an unknown encoder')} ({dim} wide, {depth} deep)"

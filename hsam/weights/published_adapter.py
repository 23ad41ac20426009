"""Adapter files of the published H-SAM code.

Source: the published H-SAM code, `sam_lora_image_encoder_mask_decoder.py` and `mask_decoder_*.py`.
"""

import re
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor

from hsam.encoders.sam_vit import vit_kind
from hsam.lora import lora_layers, unmerge_lora
from hsam.two_stage import HSAM
from hsam.weights.files import listed, read_tensors
from hsam.weights.sam_checkpoint import LoadReport

_LORA = re.compile(r"^w_([ab])_(\d+)$")
_CLASS_MLP = re.compile(
    r"^(mask_decoder2?)\.output_hypernetworks_mlps2?\.(\d+)\.layers\.(\d+)\.(weight|bias)$"
)
# the model has these tensors, but uses them with point prompts only
_UNUSED = re.compile(r"^prompt_encoder2?\.point_embeddings\.\d+\.weight$")
# norms inside the masked cross attentions, which the published forward doesn't use
_DEAD = re.compile(
    r"^mask_decoder2\.transformer2\.layers\.\d+\.cross_attn_\w+_to_\w+\.norm[123]\.(weight|bias)$"
)
_PREFIXES = (
    ("prompt_encoder2.", "prompt_encoder."),
    ("prompt_encoder.", "prompt_encoder."),
    ("mask_decoder2.transformer2.", "fine_decoder.transformer."),
    ("mask_decoder2.self_attn.", "fine_decoder.cm_attention.self_attn."),
    ("mask_decoder2.self_attn2.", "fine_decoder.cm_attention.self_attn2."),
    ("mask_decoder2.norm1.", "fine_decoder.cm_attention.norm1."),
    ("mask_decoder2.norm2.", "fine_decoder.cm_attention.norm2."),
    ("mask_decoder2.mlp.", "fine_decoder.cm_attention.mlp."),
    ("mask_decoder2.med_sel.0.", "fine_decoder.cm_attention.select."),
    ("mask_decoder2.skip_connect.", "fine_decoder.pixel_decoder.skip_connect."),
    ("mask_decoder2.", "fine_decoder."),
    ("mask_decoder.", "coarse_decoder."),
)


def load_published_adapter(model: HSAM, path: str | Path) -> LoadReport:
    """Load an adapter file of the published H-SAM code, and set the gate to "constant".

    The file has LoRA, prompt encoder and decoders, and no weights of SAM's encoder: load SAM's
    checkpoint first.

    Args:
        model: H-SAM with all three parts of stage 2 and a LoRA of the file's rank.
        path: the adapter file.

    Returns:
        what became of each tensor of the file and of the model.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no adapter file, one for another backbone, rank, image size or number of
            classes, or one with missing, unexpected or misshapen tensors; all are listed.
    """
    if not isinstance(model, HSAM):
        raise ValueError(f"model: expected H-SAM, got {type(model).__name__}")
    state = read_tensors(path)
    _check_made_for(model, state, path)
    unmerge_lora(model)
    values, report, problems = _translate(state)
    target = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("image_encoder.") or name.endswith((".a_q", ".b_q", ".a_v", ".b_v"))
    }
    optional = "prompt_encoder.point_embeddings."
    report.loaded = [name for name in values if name in target]
    report.new = [name for name in target if name not in values]
    problems += [f"missing {name}" for name in report.new if not name.startswith(optional)]
    problems += [f"unexpected {name}" for name in values if name not in target]
    problems += [
        f"{name}: expected {tuple(target[name].shape)}, got {tuple(values[name].shape)}"
        for name in report.loaded
        if values[name].shape != target[name].shape
    ]
    if problems:
        raise ValueError(f"adapter {path} doesn't fit: {listed(problems, '; ')}")
    with torch.no_grad():
        for name in report.loaded:
            target[name].copy_(values[name])
    attention = model.fine_decoder.cm_attention
    assert attention is not None, "its tensors were asked for"
    attention.gate = model.config["gate"] = "constant"
    return report


def _translate(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], LoadReport, list[str]]:
    """Rename the file's tensors to the model's names, and stack the MLPs of all classes.

    Returns:
        tensors by the model's names, a report with the unused names, and all problems found.
    """
    values: dict[str, Tensor] = {}
    report, problems = LoadReport(), []
    per_class: dict[str, dict[int, Tensor]] = defaultdict(dict)
    for key, value in state.items():
        if match := _LORA.match(key):
            block, projection = divmod(int(match[2]), 2)
            name = f"image_encoder.blocks.{block}.attn.qkv.{match[1]}_{'qv'[projection]}"
        elif match := _CLASS_MLP.match(key):
            decoder = "fine_decoder" if match[1] == "mask_decoder2" else "coarse_decoder"
            kind = "weights" if match[4] == "weight" else "biases"
            per_class[f"{decoder}.class_mlps.{kind}.{match[3]}"][int(match[2])] = value
            continue
        elif _UNUSED.match(key) or _DEAD.match(key):
            report.unused.append(key)
            continue
        else:
            found = next(((old, new) for old, new in _PREFIXES if key.startswith(old)), None)
            if found is None:
                problems.append(f"unexpected {key}")
                continue
            name = found[1] + key.removeprefix(found[0])
        if name in values and not torch.equal(values[name], value):
            problems.append(f"{key}: expected the same values as its twin, got others")
        values[name] = value
    for name, parts in per_class.items():
        if sorted(parts) != list(range(len(parts))) or len({p.shape for p in parts.values()}) > 1:
            problems.append(f"{name}: expected one MLP per class, got classes {sorted(parts)}")
        else:
            values[name] = torch.stack([parts[index] for index in range(len(parts))])
    return values, report, problems


def _check_made_for(model: HSAM, state: dict[str, Tensor], path: str | Path) -> None:
    """Raise a ValueError for a file of another backbone, rank, image size or number of classes."""
    attention = model.fine_decoder.cm_attention
    if (
        attention is None
        or not model.fine_decoder.mask_attention
        or (model.fine_decoder.pixel_decoder is None)
    ):
        raise ValueError("model: expected all three parts of stage 2, got one without some")
    first = state.get("w_a_000")
    tokens = state.get("mask_decoder.mask_tokens.weight")
    response = state.get("mask_decoder2.norm1.weight")
    if first is None or tokens is None or response is None or first.ndim != 2:
        raise ValueError(f"{path}: expected an adapter file of the published H-SAM code")
    layers = list(lora_layers(model))
    found = {
        "backbone": vit_kind(first.shape[1], sum(key.startswith("w_a_") for key in state) // 2),
        "LoRA rank": first.shape[0],
        "image size": 16 * round(response.numel() ** 0.5),
        "classes with background": tokens.shape[0],
    }
    encoder = model.image_encoder
    expected = {
        "backbone": encoder.kind(),
        "LoRA rank": layers[0].rank if layers else 0,
        "image size": model.image_size,
        "classes with background": model.classes,
    }
    if found != expected:
        wanted = ", ".join(f"{name} {value}" for name, value in expected.items())
        got = ", ".join(f"{name} {value}" for name, value in found.items())
        raise ValueError(f"{path}: expected an adapter for {wanted}; this one is for {got}")

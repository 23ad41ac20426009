"""Image encoders in Hugging Face form: a folder with config.json and model.safetensors.

What can be known without the weights is read here, without PyTorch and transformers, so that names
and sides can be checked at once. `hsam.encoders.hugging_face` builds what this describes. One more
architecture of a kind that is known is one line in `ARCHITECTURES`.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from hsam.backbones import HUGGING_FACE, Backbone

CONFIG, WEIGHTS, PREPROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, where a folder has none
_MODULE = "hsam.encoders.hugging_face"
_HUB_NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", re.ASCII)
# whole models that hold an encoder, and the block of config.json that describes it
_WHOLE = {name: ("vision_config", "sam2_vision_model") for name in ("sam2", "sam2_video")}
# what says nothing about the encoder
_NO_PART = re.compile(
    r"^(_.*|.*dtype|.*_version|architectures|auto_map|chunk_size.*|id2label|is_.*|label2id|"
    r"out_features|out_indices|output_.*|problem_type|return_dict|stage_names)$"
)


@dataclass(frozen=True)
class Architecture:
    """One kind of encoder that transformers builds.

    Attributes:
        title: what people call it.
        model: the class in transformers.
        family: "module:class" that makes it an image encoder.
        sizes: gives `Backbone`'s stride, side_multiple and features, and what the family's class
            needs beside the config, from the values of config.json.
        defaults: values of config.json where it leaves them out.
    """

    title: str
    model: str
    family: str
    sizes: Callable[[Mapping[str, Any]], dict[str, int]]
    defaults: Mapping[str, Any] = field(default_factory=dict)


def _tokens(config: Mapping[str, Any]) -> dict[str, int]:
    """Sizes of an encoder whose output is a row of tokens, those of the patches last."""
    patch = _whole(config["patch_size"])
    return {
        "stride": patch,
        "side_multiple": patch,
        "features": _whole(config["hidden_size"]),
        "depth": _whole(config["num_hidden_layers"]),
        "first_patch": 1 + _whole(config["num_register_tokens"], lowest=0),
    }


def _pyramid(config: Mapping[str, Any]) -> dict[str, int]:
    """Sizes of SAM 2's encoder, of whose pyramid of maps the coarsest is used."""
    hiera = config["backbone_config"]
    patch, step = _whole(hiera["patch_stride"]), _whole(hiera["query_stride"])
    # each pooling takes a whole grid, and positions repeat with the first stage's windows
    pooled = patch * step ** _whole(hiera["num_query_pool_stages"], lowest=0)
    window = patch * _whole(hiera["window_size_per_stage"][0])
    return {
        "stride": patch * step ** (_whole(config["num_feature_levels"]) - 1),
        "side_multiple": math.lcm(pooled, window),
        "features": _whole(config["fpn_hidden_size"]),
        "depth": sum(hiera["blocks_per_stage"]),
    }


_DINO2 = {
    "patch_size": 14,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_register_tokens": 0,
}
_DINO3 = _DINO2 | {"patch_size": 16, "hidden_size": 384}
_HIERA = {
    "model_type": "sam2_hiera_det_model",
    "patch_stride": [4, 4],
    "query_stride": [2, 2],
    "num_query_pool_stages": 3,
    "blocks_per_stage": [1, 2, 7, 2],
    "window_size_per_stage": [8, 4, 14, 7],
}
_SAM2 = {"fpn_hidden_size": 256, "num_feature_levels": 3, "backbone_config": _HIERA}
_TOKENS, _PYRAMID = f"{_MODULE}:TokenEncoder", f"{_MODULE}:PyramidEncoder"

# by the model_type of config.json
ARCHITECTURES: dict[str, Architecture] = {
    "dinov3_vit": Architecture("DINOv3", "DINOv3ViTModel", _TOKENS, _tokens, _DINO3),
    "dinov2": Architecture("DINOv2", "Dinov2Model", _TOKENS, _tokens, _DINO2),
    "dinov2_with_registers": Architecture(
        "DINOv2", "Dinov2WithRegistersModel", _TOKENS, _tokens, _DINO2 | {"num_register_tokens": 4}
    ),
    "sam2_vision_model": Architecture("Hiera", "Sam2VisionModel", _PYRAMID, _pyramid, _SAM2),
}


def backbone(name: str, form: Mapping[str, Any] | None = None) -> Backbone:
    """The backbone of a name that begins with "hf:".

    Args:
        name: "hf:" and a folder, or a hub name whose files are in the hub's cache.
        form: what `read_form` gave when a model was built; None: read the folder.

    Raises:
        ValueError: no such folder, or one that holds no encoder that can be used.
    """
    form = read_form(folder_of(name)) if form is None else form
    config = form["config"]
    architecture = ARCHITECTURES.get(config.get("model_type"))
    if architecture is None:
        known = sorted({*ARCHITECTURES, *_WHOLE})
        raise ValueError(
            f"{name}: expected an encoder of model_type {', '.join(known)} in {CONFIG}, "
            f"found {config.get('model_type')!r}"
        )
    try:
        config = _with_defaults(architecture.defaults, config)
        sizes = architecture.sizes(config)
        mean, std = _three(form["mean"]), _three(form["std"], positive=True)
        if _whole(config.get("backbone_config", config).get("num_channels", 3)) != 3:
            raise ValueError("num_channels other than 3")
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{name}: expected the sizes of a {architecture.title} encoder in {CONFIG}, mean and "
            f"deviation of three channels in {PREPROCESSOR}, found others ({error})"
        ) from None
    stride, side_multiple, features = map(sizes.pop, ("stride", "side_multiple", "features"))
    return Backbone(
        architecture.family,
        {"title": architecture.title, "model": architecture.model, "config": config} | sizes,
        stride=stride,
        side_multiple=side_multiple,
        features=features,
        mean=mean,
        std=std,
        hugging_face=form,
    )


def folder_of(name: str) -> Path:
    """The folder that a name beginning with "hf:" stands for.

    A folder of this machine comes first, then the hub's cache. Nothing is downloaded.

    Raises:
        ValueError: neither has it.
    """
    place = name.removeprefix(HUGGING_FACE)
    if Path(place).is_dir():
        return Path(place)
    if not _HUB_NAME.match(place):
        raise ValueError(f"{name}: there is no folder {place}")
    config = _cached(place, CONFIG)
    if config is None:
        raise ValueError(
            f"{name}: there is no folder {place}, and the hub's cache has no such model; fetch it "
            f"with `hf download {place} {CONFIG} {PREPROCESSOR} {WEIGHTS}`"
        )
    return config.parent


def read_form(folder: Path) -> dict[str, Any]:
    """Read the description of the encoder in a folder, as JSON values.

    Returns:
        config: config.json's values that describe the encoder.
        mean, std: of the pretraining's images in [0, 1], by channel.

    Raises:
        ValueError: no config.json, or files that aren't JSON.
    """
    config = _json(folder / CONFIG)
    if (whole := config.get("model_type")) in _WHOLE:
        block, model_type = _WHOLE[whole]
        config = {"model_type": model_type} | (config.get(block) or {})
    seen = _json(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else {}
    return {
        "config": _describing(config),
        "mean": seen.get("image_mean") or list(MEAN),
        "std": seen.get("image_std") or list(STD),
    }


def weights_file(place: str | Path) -> Path:
    """The weight file of an encoder.

    Args:
        place: a name that begins with "hf:", a folder, or the file itself.

    Raises:
        ValueError: no such folder or file, or weights in another form than one safetensors file.
    """
    text = str(place)
    folder = folder_of(text) if text.startswith(HUGGING_FACE) else Path(place)
    if folder.is_file():
        return folder
    if (path := folder / WEIGHTS).is_file():
        return path
    if (folder / f"{WEIGHTS}.index.json").is_file():
        found, way = "weights in several files", " as one file (max_shard_size)"
    elif pickled := sorted(path.name for path in folder.glob("*.bin")):
        found, way = f"{pickled[0]}, which may run code when it is read,", " in that form"
    else:
        raise ValueError(f"{text}: expected {WEIGHTS} in {folder}, found none; fetch it again")
    raise ValueError(
        f"{text}: expected {WEIGHTS}, found {found} in {folder}; save the model again{way} with "
        "transformers' save_pretrained"
    )


def _cached(repository: str, name: str) -> Path | None:
    """A file of a hub's repository, where the hub's cache has it."""
    try:
        hub = import_module("huggingface_hub")
    except ImportError:
        return None
    found = hub.try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path}: expected the description of an encoder in Hugging Face form, found no file"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: can't be read as JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a mapping, found {type(value).__name__}")
    return value


def _describing(config: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a config that affect the encoder, sorted by name."""
    return {
        key: _describing(value) if isinstance(value, dict) else value
        for key, value in sorted(config.items())
        if not _NO_PART.match(key)
    }


def _with_defaults(defaults: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """A config, with defaults for what it leaves out, also in its blocks."""
    values = {**config, **{key: v for key, v in defaults.items() if config.get(key) is None}}
    for key, default in defaults.items():
        if isinstance(default, dict):
            values[key] = _with_defaults(default, values[key])
    return values


def _whole(value: Any, lowest: int = 1) -> int:
    """An integer, given as one or as a pair of equal ones; ValueError below `lowest`."""
    pair = value if isinstance(value, list | tuple) and len(value) == 2 else [value, value]
    first, second = pair
    if not isinstance(first, int) or isinstance(first, bool) or first != second or first < lowest:
        raise ValueError(f"expected a whole number from {lowest}, got {value!r}")
    return first


def _three(values: Any, positive: bool = False) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    if positive and min(first, second, third) <= 0:
        raise ValueError(f"expected deviations above 0, got {values!r}")
    return first, second, third

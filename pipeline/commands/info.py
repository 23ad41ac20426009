"""`hsam info`: version, models, encoders, data sets, weights and devices, told at once.

Imports neither PyTorch nor what reads parameters, so that other programs may ask often.
"""

import json
import platform
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from hsam.backbones import BACKBONES
from hsam.registry import MODELS
from hsam.version import __version__
from pipeline.core import devices, home, installed, weight_files
from pipeline.core.registry import DATASETS

WIDTH = 100
TITLES = 11  # columns of the lines' first words


def run(as_json: bool) -> None:
    """Print what there is, as JSON or for people."""
    facts = gather()
    print(json.dumps(facts, indent=2) if as_json else "\n".join(_lines(facts)))


def gather() -> dict[str, Any]:
    """All of it as JSON values.

    Returns:
        version, python, home (folder of rules, presets and studies), clone (whether that is one of
        the repository); pytorch: version and built_for, or None; models: name, title, stages,
        encoder; encoders: name, and weights (file, megabytes, licence, trained_on, state "present",
        "missing" or "damaged" by size alone, path), None for one without published weights;
        data_sets, presets, studies: names; extras: name to missing packages; devices: cpu with
        cores and memory_gib, then NVIDIA's cards with name and uuid; visible: of
        CUDA_VISIBLE_DEVICES.
    """
    torch = installed.pytorch()
    return {
        "version": __version__,
        "python": platform.python_version(),
        "home": str(home.ROOT),
        "clone": home.is_clone(),
        "pytorch": torch and {"version": torch[0], "built_for": torch[1]},
        "models": [
            {
                "name": name,
                "title": model.title,
                "stages": list(model.stages),
                "encoder": "backbone" in model.takes,
            }
            for name, model in MODELS.items()
        ],
        "encoders": [{"name": name, "weights": _weights(name)} for name in BACKBONES],
        "data_sets": list(DATASETS),
        "presets": _names("presets"),
        "studies": _names("studies"),
        "extras": installed.extras(),
        "devices": [devices.cpu(), *devices.gpus()],
        "visible": devices.hidden(),
    }


def _weights(encoder: str) -> dict[str, Any] | None:
    file = BACKBONES[encoder].weights
    if file is None:
        return None
    path = weight_files.find(file)
    state = "missing"
    if path is not None:
        state = "present" if path.stat().st_size == file.size else "damaged"
    return {
        "file": file.name,
        "megabytes": round(file.size / 1e6, 1),
        "licence": file.licence,
        "trained_on": file.trained_on,
        "state": state,
        "path": None if path is None else str(path),
    }


def _names(kind: str) -> list[str]:
    return sorted(path.stem for path in (home.WORKFLOW / kind).glob("*.yaml"))


def _lines(facts: Mapping[str, Any]) -> list[str]:
    torch = facts["pytorch"]
    software = "no PyTorch"
    if torch:
        software = f"PyTorch {torch['version']} for {torch['built_for'] or 'the CPU'}"
    absent = [f"{name} (lacks {', '.join(m)})" for name, m in facts["extras"].items() if m]
    there = [name for name, missing in facts["extras"].items() if not missing]
    lines = [
        *_line("hsam", [facts["version"], f"Python {facts['python']}", software]),
        *_line("files", [facts["home"]]),
        *_line("models", [model["name"] for model in facts["models"]]),
        *_line("encoders", map(_encoder, facts["encoders"])),
        *_line("data sets", facts["data_sets"]),
        *_line("presets", facts["presets"]),
        *_line("studies", facts["studies"]),
        *_line("extras", there + absent),
        *_line("devices", map(_device, facts["devices"])),
    ]
    if facts["visible"] is not None:
        lines += _line("", [f"CUDA_VISIBLE_DEVICES={facts['visible']}"])
    return lines


def _line(title: str, items: Iterable[str]) -> list[str]:
    """A title and items behind it, on as many lines as they need."""
    text = ", ".join(items) or "none"
    indent = " " * TITLES
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=title.ljust(TITLES),
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _encoder(encoder: Mapping[str, Any]) -> str:
    weights = encoder["weights"]
    state = "no published weights" if weights is None else f"weights {weights['state']}"
    return f"{encoder['name']} ({state})"


def _device(device: Mapping[str, Any]) -> str:
    if device["device"] != "cpu":
        return f"{device['device']} ({device['name']})"
    memory = device["memory_gib"]
    cores = f"{device['cores']} core" + "s" * (device["cores"] != 1)
    return f"cpu ({cores}" + (")" if memory is None else f" and {memory:g} GiB)")

"""Reads which labels or mask files each organ has, from files that tools keep beside volumes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline import datasets
from pipeline.core.errors import UserError
from pipeline.core.files import read_json
from pipeline.core.params import load

IGNORE = "ignore"  # nnU-Net's name of the label that marks voxels without truth
LARGEST = 65_535  # label value that fits 16 bits

# organ to its labels in a label map, or to the names of its mask files
Organs = Mapping[str, tuple[int, ...] | tuple[str, ...]]


def read_label_names(path: Path) -> dict[str, tuple[int, ...]]:
    """Organ to its label values, in the file's order.

    Known are parameter files (.yaml: the data set's raw labels), the model.json of a run (labels 1
    to K of its predictions), nnU-Net's dataset.json in both its versions, and a plain JSON
    mapping such as {"liver": 6, "kidneys": [2, 3]}. The background, 0, is left out, and nnU-Net's
    ignore label (`read_ignored`). Organs may share values, as nnU-Net's regions do.

    Raises:
        UserError: missing, unreadable or not a description of labels; lists every problem.
    """
    if path.suffix in (".yaml", ".yml"):
        layers = load.layers(path)
        if not any("dataset" in layer.values for layer in layers):
            raise UserError(f"{path}: names no data set; expected a block dataset with its name.")
        dataset = load.resolve(layers).dataset
        return dict(datasets.get(dataset).labels(dataset).organs)
    try:
        value = read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file of labels.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not valid JSON ({error}).") from None
    if not isinstance(value, dict):
        raise UserError(f'{path}: expected a mapping such as {{"liver": 1}}, found {value!r}.')
    if isinstance(value.get("class_names"), list):
        return {str(name): (label,) for label, name in enumerate(value["class_names"], 1)}
    labels = value.get("labels", value)
    return _checked(path, labels if isinstance(labels, dict) else value)


def read_ignored(path: Path) -> int | None:
    """The label of voxels without truth, nnU-Net's `ignore`; None where a file names none.

    Args:
        path: any that `read_label_names` has read.
    """
    if path.suffix in (".yaml", ".yml"):
        return None
    value = read_json(path)
    labels = value.get("labels", value)
    found = labels.get(IGNORE) if isinstance(labels, dict) else None
    return found if _is_label(found) else None


def read_file_names(path: Path) -> dict[str, tuple[str, ...]]:
    """Organ to the names of its mask files without the ending, in the file's order.

    A plain JSON mapping may name them, such as {"kidneys": ["kidney_left", "kidney_right"]}; in any
    other description of labels the organ's own name is that of its file.

    Raises:
        UserError: as for `read_label_names`.
    """
    try:
        value = read_json(path) if path.suffix not in (".yaml", ".yml") else None
    except (OSError, ValueError):
        value = None  # read_label_names below says what is wrong
    if isinstance(value, dict) and value and not any(name.isdigit() for name in value):
        named = {
            organ: tuple(names) if isinstance(names, list) else (names,)
            for organ, names in value.items()
        }
        if all(names and all(isinstance(n, str) for n in names) for names in named.values()):
            return named
    return {organ: (organ,) for organ in read_label_names(path)}


def _checked(path: Path, labels: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Organ to its labels, without the background.

    Raises:
        UserError: values that are no labels, or no organ; lists every problem.
    """
    # nnU-Net's first version: {"1": "liver"}
    if labels and all(k.isdigit() and isinstance(v, str) for k, v in labels.items()):
        labels = {name: int(label) for label, name in labels.items()}
    organs: dict[str, tuple[int, ...]] = {}
    problems: list[str] = []
    for name, value in labels.items():
        values = value if isinstance(value, list) else [value]
        if values == [0]:
            continue
        if name == IGNORE and len(values) == 1 and _is_label(values[0]):
            continue
        if not values or not all(_is_label(item) for item in values):
            problems.append(
                f"{path}: {name}: expected a label from 1 to {LARGEST} or a list of them, "
                f"found {value!r}."
            )
        else:
            organs[name] = tuple(values)
    if not organs and not problems:
        problems.append(f"{path}: names no organ besides the background.")
    owners: dict[frozenset[int], str] = {}
    for name, chosen in organs.items():
        if (other := owners.setdefault(frozenset(chosen), name)) != name:
            problems.append(
                f"{path}: {other} and {name} have the same labels, "
                f"{', '.join(map(str, chosen))}; give each its own."
            )
    if problems:
        raise UserError(problems)
    return organs


def _is_label(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST

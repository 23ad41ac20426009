"""What the search tries: keys of `train`, each with choices or a range.

A key inside a mapping of `train` is written with a dot: `augment.noise`.
"""

import difflib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from hsam.registry import MODELS
from pipeline.core.params.blocks import OUTSIDE_TRIALS, Train

FORM = (
    "expected choices, such as [1, 4, 8], a range, such as {low: 0.1, high: 1, log: true}, or null"
)
LIMITS = ("low", "high")
SCALARS = (bool, int, float, str, types.NoneType)
OPTIONS = "model_options"
# why a key is no knob, beside those that a trial has in its own way
NO_KNOBS = {
    "seed": "the best of several seeds is luck, not a setting",
    "epochs": "search.epochs says how long a trial is",
    **dict.fromkeys(
        ("model", "backbone", "sam_checkpoint", "start"),
        "other models are other runs, the arms of a study",
    ),
}
# what a model that lacks the key is said not to have
LACKING = {"lora_rank": "no LoRA whose rank", "lambda_start": "one stage, so no lambda that"}

# the problems of a whole `train` block, as sentences
Check = Callable[[Mapping[str, Any]], list[str]]


@dataclass(frozen=True)
class Limits:
    """A range; `whole`: of whole numbers, both ends included."""

    low: float
    high: float
    log: bool
    whole: bool


def knobs(space: Mapping[str, Any]) -> dict[str, list[Any] | Limits]:
    """Key to what is tried of it, for a space without problems; keys with null are left out."""
    found: dict[str, list[Any] | Limits] = {}
    for key, given in space.items():
        if isinstance(given, Mapping):
            whole = float not in _kinds(key)
            found[key] = Limits(given["low"], given["high"], bool(given.get("log")), whole)
        elif given is not None:
            found[key] = list(given)
    return found


def shown(value: Any) -> str:
    """A value for people: numbers with three digits."""
    if value is None:
        return "null"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def value_at(train: Mapping[str, Any], key: str) -> Any:
    """The value that `train` has at a dotted key; None also where a mapping on the way is null."""
    value: Any = train
    for name in key.split("."):
        value = None if value is None else value.get(name)
    return value


def tried(given: Any) -> list[Any]:
    """The choices, or the ends of the range; nothing for null."""
    if isinstance(given, Mapping):
        return [given.get(name) for name in LIMITS]
    return given if isinstance(given, list) else []


def problems(space: Mapping[str, Any], train: Mapping[str, Any], check: Check) -> dict[str, str]:
    """Key to what is wrong with what is tried of it.

    Args:
        space: `search.space`.
        train: the `train` block, whose other values stay.
        check: finds the problems of a `train` block.
    """
    found = {}
    known = set(check(train))
    for key, given in space.items():
        if given is None:
            continue
        problem = _no_knob(key, train) or _bad_form(key, given)
        if problem is None:
            problem = _refused(key, given, train, lambda block: set(check(block)) - known)
        if problem is not None:
            found[key] = problem
    return found


def lacking(key: str, model: str) -> str | None:
    """What a model has not, so that a key says nothing to it; None where it has it."""
    if key == "lambda_start":
        return LACKING[key] if len(MODELS[model].stages) == 1 else None
    if key not in {name for line in MODELS.values() for name in line.takes}:
        return None
    return None if key in MODELS[model].takes else LACKING.get(key, f"no {key} that")


def _no_knob(key: str, train: Mapping[str, Any]) -> str | None:
    """Why a key can't be searched at all."""
    names = _names(train)
    if key not in names:
        near = difflib.get_close_matches(key, names, 1)
        hint = f"write {near[0]}" if near else "remove it (`hsam params` lists the keys of train)"
        return f"train has no such key; {hint}."
    if key in NO_KNOBS:
        return f"{NO_KNOBS[key]}; remove it."
    field = Train.model_fields[key.partition(".")[0]]
    if OUTSIDE_TRIALS in field.metadata:
        return f"it {OUTSIDE_TRIALS.meaning}; remove it."
    if not _kinds(key):
        return (
            "train takes a list or a mapping there, and only single values are searched; remove it."
        )
    return None


def _bad_form(key: str, given: Any) -> str | None:
    """What is wrong with the choices or the range, whatever their values."""
    if isinstance(given, list):
        if not given or not all(isinstance(value, SCALARS) for value in given):
            return f"{given!r}: {FORM}."
        distinct = {(type(value), value) for value in given}
        return None if len(distinct) == len(given) else f"{given!r}: a choice is there twice."
    if not isinstance(given, Mapping) or not {*LIMITS} <= {*given} <= {*LIMITS, "log"}:
        return f"{given!r}: {FORM}."
    low, high, log = given["low"], given["high"], given.get("log", False)
    kinds = _kinds(key)
    if not kinds & {int, float}:
        return "train takes no number there, so it has no range; give choices."
    if not isinstance(log, bool):
        return f"log: expected true or false, found {log!r}."
    wanted = (int, float) if float in kinds else (int,)
    for name, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, wanted):
            kind = "a number" if float in kinds else "a whole number"
            hint = _hint(value)
            return f"{name}: expected {kind}, found {value!r}{hint}."
    if not low < high:
        return f"low ({low}) must be below high ({high})."
    if log and low <= 0:
        return f"low ({low}) must be above 0 where log is true."
    return None


def _hint(value: Any) -> str:
    """How YAML wants a number such as 1e-4, which it takes for a text."""
    try:
        return f" (write {float(value):.12f}".rstrip("0") + ")" if isinstance(value, str) else ""
    except ValueError:
        return ""


def _refused(key: str, given: Any, train: Mapping[str, Any], check: Any) -> str | None:
    """The first of the values that `train` does not take, and why."""
    outer, _, inner = key.partition(".")
    for value in tried(given):
        block = {**train, outer: {**(train[outer] or {}), inner: value} if inner else value}
        if found := check(block):
            own = sorted(found, key=lambda text: not text.startswith(f"train.{key}:"))
            return f"{value!r} can't be tried: {own[0]}"
    return None


def _names(train: Mapping[str, Any]) -> list[str]:
    """All dotted keys of `train`, with the options of its model."""
    names = []
    for name, field in Train.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names += [f"{name}.{key}" for key in inner.model_fields]
        elif name == OPTIONS:
            names += [f"{OPTIONS}.{key}" for key in MODELS[train["model"]].options]
        else:
            names.append(name)
    return names


def _kinds(key: str) -> set[type]:
    """The types of single values that `train` takes at a key; empty: lists or mappings alone."""
    outer, _, inner = key.partition(".")
    if outer == OPTIONS:
        options = [line.options[inner] for line in MODELS.values() if inner in line.options]
        return {type(option.default) for option in options} & {int, float}
    field = Train.model_fields[outer]
    if inner:
        field = field.annotation.model_fields[inner]  # type: ignore[union-attr]
    return _single(field.annotation) - {types.NoneType}


def _single(annotation: Any) -> set[type]:
    origin = get_origin(annotation)
    if origin is Literal:
        return {type(value) for value in get_args(annotation)}
    if origin is Annotated:
        return _single(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return set().union(*map(_single, get_args(annotation)))
    return {annotation} if annotation in SCALARS else set()

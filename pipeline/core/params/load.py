"""Reading parameter files and checking them: every problem is listed at once, with its file.

A parameter file may be partial. What it leaves out comes from the files before it and, at the
bottom, from the packaged defaults (`defaults.yaml`). A file may itself stand on others, as Hydra
has it: `defaults: [paper, _self_]` lays it over `paper.yaml` in its folder.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from hsam.backbones import BACKBONES, HUGGING_FACE, get_backbone
from hsam.registry import MODELS
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.core.params import search_space, search_url
from pipeline.core.params.blocks import MOST_CHANNELS, Block, Params, Train

DEFAULTS = Path(__file__).with_name("defaults.yaml")
BASES, SELF = "defaults", "_self_"
# keys of earlier versions, and how they are written
MOVED = {
    "search.lora_rank": "written search.space: {lora_rank: [1, 4, 8]}",
    **{
        f"search.{key}": f"written search.space: {{{key}: {{low: 0.2, high: 0.9}}}}"
        for key in ("dice_weight", "lambda_start")
    },
}


@dataclass(frozen=True)
class Layer:
    """Some parameters and where they come from, as messages name it: a file, or `--config`."""

    name: str
    values: dict[str, Any]


class Problem(NamedTuple):
    """A sentence on one key, and all keys whose values have a part in it."""

    text: str
    keys: tuple[str, ...]


def load(paths: Sequence[Path]) -> Params:
    """The packaged defaults with YAML files laid over them, later ones over earlier ones.

    Raises:
        UserError: a file that is missing or not YAML, or bad values; all of these at once, each
            with the file that it stands in.
    """
    return resolve([layer for path in paths for layer in layers(Path(path))])


def layers(path: Path, above: tuple[Path, ...] = ()) -> list[Layer]:
    """A parameter file, behind the files that it stands on; `above` are those that led to it."""
    if path.resolve() in above:
        names = " -> ".join(file.name for file in (*above, path))
        raise UserError(f"{path}: {BASES}: the file stands on itself ({names}).")
    values = read_yaml(path)
    bases = values.pop(BASES, [SELF])
    named = isinstance(bases, list) and bases and all(isinstance(name, str) for name in bases)
    if not named or bases[-1] != SELF or SELF in bases[:-1]:
        raise UserError(
            f"{path}: {BASES}: expected names of files in its folder, without .yaml, and {SELF} "
            f"as the last, such as [paper, {SELF}]; found {bases!r}."
        )
    found = []
    for name in bases[:-1]:
        base = path.parent / f"{name}.yaml"
        if not base.is_file():
            raise UserError(f"{path}: {BASES}: {name!r} asks for {base}, which is not there.")
        found += layers(base, (*above, path.resolve()))
    return [*found, Layer(str(path), values)]


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML 1.2 mapping; UserError when the file is missing or not one."""
    try:
        text = files.read_text(path)
    except FileNotFoundError:
        there = ", ".join(sorted(other.name for other in Path(path).parent.glob("*.yaml")))
        hint = f"; in its folder are {there}" if there else ""
        raise UserError(f"{path}: there is no such parameter file{hint}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read as text ({error}).") from None
    try:
        value = copy.deepcopy(_parsed(text))
    except YAMLError as error:
        where = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML ({where}).") from None
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a mapping of blocks, found {type(value).__name__}.")
    return value


@lru_cache(maxsize=64)
def _parsed(text: str) -> Any:
    """YAML's value, to be copied: the runs of a study stand on the same few presets."""
    return YAML(typ="safe", pure=True).load(text)


def overlay(base: dict[str, Any], *changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with every mapping of `changes` laid over it, block by block; lists are replaced."""
    result = dict(base)
    for change in changes:
        for key, value in change.items():
            old = result.get(key)
            if isinstance(old, dict) and isinstance(value, dict):
                value = overlay(old, value)
            result[key] = value
    return result


def resolve(given: Sequence[Layer]) -> Params:
    """The packaged defaults with layers over them, later ones over earlier ones.

    Raises:
        UserError: lists every problem with the file that the value stands in, its key and value.
    """
    ordered = [_defaults(), *given]
    merged = overlay({}, *(layer.values for layer in ordered))
    problems = _contradictions(merged)
    try:
        params = Params.model_validate(merged)
    except ValidationError as error:
        problems = _field_problems(error) + problems
    if problems:
        raise UserError([f"{_origin(ordered, merged, keys)}: {text}" for text, keys in problems])
    return params


@cache
def _defaults() -> Layer:
    return Layer("the packaged defaults", read_yaml(DEFAULTS))


def validate(values: dict[str, Any], source: str) -> Params:
    """`values` over the packaged defaults; messages name `source`."""
    return resolve([Layer(source, values)])


def _origin(ordered: Sequence[Layer], merged: dict[str, Any], keys: Sequence[str]) -> str:
    """The names of the layers that set the keys; of the defaults only where no other does."""
    names = []
    for key in keys:
        path = key.split(".")
        while not _has(merged, path):
            path = path[:-1]
        names.append(next(layer.name for layer in reversed(ordered) if _has(layer.values, path)))
    given = [name for name in names if name != ordered[0].name] or names
    return " and ".join(dict.fromkeys(given))


def _has(values: Any, path: Sequence[str]) -> bool:
    """Whether `values` say something of the key: itself, or what it would lie in."""
    for key in path:
        if not isinstance(values, dict):
            return True
        if key not in values:
            return False
        values = values[key]
    return True


def _field_problems(error: ValidationError, block: type[Block] = Params) -> list[Problem]:
    """One sentence a key of a block; the refusals of a union's members are joined into one."""
    reasons: dict[tuple[str, str], list[str]] = {}
    items = [(".".join(_key_path(item["loc"], block)), item) for item in error.errors()]
    for path, item in items:
        if isinstance(item["input"], list) and any(key.startswith(f"{path}.") for key, _ in items):
            continue  # the list is right, one of its items isn't
        if item["type"] == "missing":
            found, reason = "missing", "add it (`hsam params` explains it)"
        elif item["type"] == "extra_forbidden":
            found, reason = f"unknown key (value {item['input']!r})", "remove it or mend its name"
            if path in MOVED:
                reason = f"it is {MOVED[path]}"
        else:
            found = f"{item['input']!r} is not allowed"
            reason = item["msg"][0].lower() + item["msg"][1:] + _quotes_hint(item)
        known = reasons.setdefault((path, found), [])
        if reason not in known:
            known.append(reason)
    return [
        Problem(f"{path}: {found}: {', or '.join(why)}.", (path,))
        for (path, found), why in reasons.items()
    ]


def _quotes_hint(item: Mapping[str, Any]) -> str:
    """How to write a number that stands in quotes, or a text that YAML takes for something else."""
    value = item["input"]
    if item["type"] == "string_type" and isinstance(value, int | float | date):
        kind = "true or false" if isinstance(value, bool) else "a number"
        kind = "a date" if isinstance(value, date) else kind
        return f' (YAML reads {kind} there; write it in quotes, such as "002")'
    try:
        number = float(value) if isinstance(value, str) else None
        return "" if number is None else f" (write {number:.12g}, without quotes)"
    except ValueError:
        return ""


def _key_path(location: tuple[int | str, ...], block: type[Block]) -> list[str]:
    """The keys of an error's location, without the names of union members that pydantic adds."""
    model: Any = block
    keys = []
    for part in location:
        fields = getattr(model, "model_fields", None)
        if fields is not None:
            keys.append(str(part))
            inner = fields[part].annotation if part in fields else None
            model = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else None
        elif isinstance(part, int) or part in ("low", "high", "kind"):
            keys.append(str(part))
    return keys


def _contradictions(values: dict[str, Any]) -> list[Problem]:
    """Values that are each allowed but not together; a rule is skipped where its keys are bad."""
    problems = []
    for rule in (
        _intensity_order,
        _channels,
        _split_ways,
        _folds,
        _encoder_weights,
        _encoder_sides,
        _frozen_encoder,
        _needs_validation,
        _one_stage,
        _audit,
        _model_options,
        _search_space,
        _search_knobs,
        _search_pruner,
        _search_storage,
        _crop_range,
        _validation_slices,
    ):
        try:
            problems += rule(values)
        except (KeyError, TypeError, ValueError):
            continue
    return problems


def _intensity_order(values: dict[str, Any]) -> list[Problem]:
    given, key = values["prepare"]["intensity"], "prepare.intensity"
    rules = {f"{key}.{at}": rule for at, rule in enumerate(given)} if _is_list(given) else {}
    if given is not None and not rules:
        rules = {key: given}
    return [
        Problem(
            f"{place}: low ({rule['low']}) must be below high ({rule['high']}).",
            (key,) if _is_list(given) else (f"{key}.low", f"{key}.high"),
        )
        for place, rule in rules.items()
        if rule["low"] >= rule["high"]
    ]


def _channels(values: dict[str, Any]) -> list[Problem]:
    channels, rules = values["dataset"]["channels"], values["prepare"]["intensity"]
    key, about = "dataset.channels", "prepare.intensity"
    count = 1 if channels is None else len(channels)
    problems = []
    if count > MOST_CHANNELS:
        text = (
            f"{key}: an encoder has {MOST_CHANNELS} inputs, found {count} channels; name the one, "
            f"two or three to use, such as [{', '.join(map(str, channels[:MOST_CHANNELS]))}]."
        )
        problems.append(Problem(text, (key,)))
    if channels is not None and len(set(channels)) < count:
        problems.append(
            Problem(f"{key}: {channels} names a channel twice; name each once.", (key,))
        )
    if _is_list(rules) and len(rules) != count:
        text = (
            f"{about}: {len(rules)} rules for {count} channel{'' if count == 1 else 's'} "
            f"({key}); give one for each, or a single one that holds for all."
        )
        problems.append(Problem(text, (about, key)))
    return problems


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _split_ways(values: dict[str, Any]) -> list[Problem]:
    split = values["split"]
    keys = ("test", "folds", "fold", "subjects", "slices")
    set_too = [key for key in keys if split[key] is not None]
    if split["list"] is not None and set_too:
        names = ", ".join(set_too)
        text = f"split.list: the list names the roles itself; set {names} to null."
        return [Problem(text, ("split.list", *(f"split.{key}" for key in set_too)))]
    return []


def _folds(values: dict[str, Any]) -> list[Problem]:
    split = values["split"]
    folds, fold = split["folds"], split["fold"]
    if folds is None and fold is None:
        return []
    both = ("split.folds", "split.fold")
    if folds is None or fold is None:
        given, lacking = ("fold", "folds") if folds is None else ("folds", "fold")
        text = f"split.{given}: says nothing without split.{lacking}; set both or none of them."
        return [Problem(text, both)]
    if fold >= folds:
        text = f"split.fold: {folds} folds are numbered 0 to {folds - 1}, found {fold}."
        return [Problem(text, both)]
    if split["test"] is not None:
        text = "split.folds: a fold is what is tested on; set split.test to null."
        return [Problem(text, ("split.folds", "split.test"))]
    return []


def _encoder_weights(values: dict[str, Any]) -> list[Problem]:
    train = values["train"]
    problems = []
    if not MODELS[train["model"]].pretrained:
        return []
    backbone = train["backbone"]
    if backbone.startswith(HUGGING_FACE):
        if train["sam_checkpoint"] is None:
            return []
        text = (
            f"train.sam_checkpoint: {train['sam_checkpoint']!r} can't load into {backbone}, whose "
            "weights lie beside its config.json; set it to null."
        )
        return [Problem(text, ("train.sam_checkpoint", "train.backbone"))]
    if not BACKBONES[backbone].pretrained and train["sam_checkpoint"] is not None:
        text = (
            f"train.sam_checkpoint: {train['sam_checkpoint']!r} can't load into {backbone}, "
            "which has no SAM weights; set it to null or choose another backbone."
        )
        problems.append(Problem(text, ("train.sam_checkpoint", "train.backbone")))
    if train["sam_checkpoint"] is None and not train["train_encoder"]:
        text = (
            "train.train_encoder: false freezes an encoder whose weights are random "
            "(sam_checkpoint is null); set it to true, or sam_checkpoint to auto or a file."
        )
        problems.append(Problem(text, ("train.train_encoder", "train.sam_checkpoint")))
    return problems


def _encoder_sides(values: dict[str, Any]) -> list[Problem]:
    train = values["train"]
    if "backbone" not in MODELS[train["model"]].takes:
        return []
    name, line = train["backbone"], get_backbone(train["backbone"])
    key = "image_size" if train["encoder_size"] is None else "encoder_size"
    side, multiple = train[key], line.side_multiple
    if side % multiple:
        text = f"train.{key}: {name} takes multiples of {multiple}, found {side}."
        return [Problem(text, (f"train.{key}", "train.backbone"))]
    allowed = [times * side // line.stride for times in (4, 8, 16)]
    if train["image_size"] in allowed:
        return []
    text = (
        f"train.image_size: for {name} that sees {side} px expected "
        f"{', '.join(map(str, allowed[:2]))} or {allowed[2]}, found {train['image_size']}"
    )
    sixteenth = train["image_size"] // 16 * line.stride
    if sixteenth % multiple == 0 and sixteenth != side:
        text += f"; or set train.encoder_size to {sixteenth}"
    text += "."
    return [Problem(text, ("train.image_size", "train.encoder_size", "train.backbone"))]


def _frozen_encoder(values: dict[str, Any]) -> list[Problem]:
    train, search = values["train"], values["search"]
    if not train["cache_embeddings"]:
        return []
    ranks = search["space"].get("lora_rank")
    model = MODELS[train["model"]]
    trained = {
        "train.train_encoder": train["train_encoder"],
        "train.lora_rank": "lora_rank" in model.takes and train["lora_rank"] > 0,
        "search.space.lora_rank": search["trials"] > 0 and any(search_space.tried(ranks)),
        "train.model": "backbone" not in model.takes or "adapter_ratio" in model.options,
    }
    wanted = {
        "train.train_encoder": "false",
        "train.lora_rank": "0",
        "search.space.lora_rank": "null",
        "train.model": "hsam, samed or autosam",
    }
    return [
        Problem(
            "train.cache_embeddings: embeddings are computed once for a frozen encoder only; set "
            f"{key} to {wanted[key]}, or this to 0.",
            (key, "train.cache_embeddings"),
        )
        for key, asked in trained.items()
        if asked
    ]


def _needs_validation(values: dict[str, Any]) -> list[Problem]:
    train = values["train"]
    wanted = {
        "keep": train["keep"] == "best",
        "early_stopping": train["early_stopping"] is not None,
    }
    if train["validate_every"] > 0:
        return []
    return [
        Problem(
            f"train.{key}: {train[key]} needs validations; set train.validate_every to 1 or more.",
            (f"train.{key}", "train.validate_every"),
        )
        for key, asked in wanted.items()
        if asked
    ]


def _one_stage(values: dict[str, Any]) -> list[Problem]:
    model, stage = values["train"]["model"], values["evaluate"]["stage"]
    if stage in ("mean", *MODELS[model].stages):
        return []
    text = f"evaluate.stage: {model} has no {stage} stage; set it to mean, its only one."
    return [Problem(text, ("evaluate.stage", "train.model"))]


def _audit(values: dict[str, Any]) -> list[Problem]:
    if not values["evaluate"]["audit"] or values["train"]["snapshots"]:
        return []
    text = (
        "evaluate.audit: nothing is kept to score; set train.snapshots to 5, say, or this to false."
    )
    return [Problem(text, ("evaluate.audit", "train.snapshots"))]


def _model_options(values: dict[str, Any]) -> list[Problem]:
    model, given = values["train"]["model"], values["train"]["model_options"] or {}
    known = MODELS[model].options
    problems = []
    for name, value in given.items():
        key = f"train.model_options.{name}"
        if name not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            text = f"{key}: {model} has no such option, {there}; remove it."
            problems.append(Problem(text, (key, "train.model")))
        elif problem := known[name].problem(value):
            problems.append(Problem(f"{key}: {problem} ({known[name].meaning}).", (key,)))
    return problems


def _search_space(values: dict[str, Any]) -> list[Problem]:
    search, train = values["search"], values["train"]
    if not isinstance(search["space"], dict):
        return []
    rules = (_encoder_weights, _encoder_sides, _one_stage, _model_options, _crop_range)

    def check(block: Mapping[str, Any]) -> list[str]:
        try:
            Train.model_validate(block)
        except ValidationError as error:
            return [f"train.{problem.text}" for problem in _field_problems(error, Train)]
        changed = {**values, "train": block}
        return [problem.text for rule in rules if search["trials"] for problem in rule(changed)]

    return [
        Problem(f"search.space.{key}: {text}", (f"search.space.{key}", "search.trials"))
        for key, text in search_space.problems(search["space"], train, check).items()
    ]


def _search_knobs(values: dict[str, Any]) -> list[Problem]:
    search, model = values["search"], values["train"]["model"]
    if not search["trials"]:
        return []
    wanted = [key for key, given in search["space"].items() if given is not None]
    problems = [
        Problem(
            f"search.space.{key}: {model} has {why} could be tuned; set it to null.",
            (f"search.space.{key}", "train.model", "search.trials"),
        )
        for key in wanted
        if (why := search_space.lacking(key, model)) is not None
    ]
    if not wanted:
        text = (
            f"search.trials: {search['trials']} trials, but nothing to tune; give a key of "
            "search.space choices or a range, or set search.trials to 0."
        )
        problems.append(Problem(text, ("search.trials", "search.space")))
    return problems


def _search_pruner(values: dict[str, Any]) -> list[Problem]:
    search = values["search"]
    if search["pruner"] == "none" or search["validate_every"] > 0:
        return []
    text = (
        f"search.pruner: {search['pruner']} compares validations on the way; set "
        "search.validate_every to 1 or more, or this to none."
    )
    return [Problem(text, ("search.pruner", "search.validate_every"))]


def _search_storage(values: dict[str, Any]) -> list[Problem]:
    found = search_url.problem(values["search"]["storage"])
    return [] if found is None else [Problem(found, (search_url.KEY,))]


def _crop_range(values: dict[str, Any]) -> list[Problem]:
    key = "train.augment.crop_side"
    low, high = values["train"]["augment"]["crop_side"]
    if not 0 < low <= high <= 1:
        return [Problem(f"{key}: [{low}, {high}] is not a range within (0, 1].", (key,))]
    return []


def _validation_slices(values: dict[str, Any]) -> list[Problem]:
    if values["split"]["validation"] > 0 or values["split"]["list"] is not None:
        return []
    return [
        Problem(
            f"{key}: {why}, but split.validation is 0; raise it or set {key} to 0.",
            (key, "split.validation"),
        )
        for key, why, wanted in (
            ("search.trials", "trials are scored on validation slices", values["search"]["trials"]),
            (
                "train.validate_every",
                "there is nothing to validate on",
                values["train"]["validate_every"],
            ),
        )
        if wanted > 0
    ]

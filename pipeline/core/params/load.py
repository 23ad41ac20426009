"""Reading parameter files and checking them: every problem is listed at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML, YAMLError

from hsam.backbones import BACKBONES
from hsam.registry import MODELS
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Params


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML 1.2 mapping; UserError when the file is missing or not one."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        there = ", ".join(sorted(other.name for other in Path(path).parent.glob("*.yaml")))
        hint = f"; in its folder are {there}" if there else ""
        raise UserError(f"{path}: there is no such parameter file{hint}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read as text ({error}).") from None
    try:
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        where = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML ({where}).") from None
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a mapping of blocks, found {type(value).__name__}.")
    return value


def overlay(base: dict[str, Any], *changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with every mapping of `changes` laid over it, block by block; lists are replaced."""
    result = dict(base)
    for change in changes:
        for key, value in change.items():
            old = result.get(key)
            both = isinstance(old, dict) and isinstance(value, dict)
            result[key] = overlay(old, value) if both else value
    return result


def validate(values: dict[str, Any], source: str) -> Params:
    """Typed parameters, or a UserError that lists every problem with key path and value."""
    problems = _contradictions(values)
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        problems = _field_problems(error) + problems
    if problems:
        raise UserError([f"{source}: {problem}" for problem in problems])
    return params


def _field_problems(error: ValidationError) -> list[str]:
    """One sentence a key; the refusals of a union's members are joined into one."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for item in error.errors():
        path = ".".join(_key_path(item["loc"]))
        if item["type"] == "missing":
            found, reason = "missing", "add it (params.yaml explains it)"
        elif item["type"] == "extra_forbidden":
            found, reason = f"unknown key (value {item['input']!r})", "remove it or mend its name"
        else:
            found = f"{item['input']!r} is not allowed"
            reason = item["msg"][0].lower() + item["msg"][1:] + _number_hint(item["input"])
        known = reasons.setdefault((path, found), [])
        if reason not in known:
            known.append(reason)
    return [f"{path}: {found}: {', or '.join(why)}." for (path, found), why in reasons.items()]


def _number_hint(value: Any) -> str:
    """YAML 1.1 readers, Snakemake's among them, take 1e-3 for text."""
    try:
        number = float(value) if isinstance(value, str) else None
        return "" if number is None else f" (write {number:.12g}, without quotes)"
    except ValueError:
        return ""


def _key_path(location: tuple[int | str, ...]) -> list[str]:
    """The keys of an error's location, without the names of union members that pydantic adds."""
    model: Any = Params
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


def _contradictions(values: dict[str, Any]) -> list[str]:
    """Values that are each allowed but not together; a rule is skipped where its keys are bad."""
    problems = []
    for rule in (
        _intensity_order,
        _split_ways,
        _encoder_weights,
        _needs_validation,
        _one_stage,
        _model_options,
        _search_ranges,
        _search_knobs,
        _crop_range,
        _validation_slices,
    ):
        try:
            problems += rule(values)
        except (KeyError, TypeError, ValueError):
            continue
    return problems


def _intensity_order(values: dict[str, Any]) -> list[str]:
    rule = values["prepare"]["intensity"]
    if rule is not None and rule["low"] >= rule["high"]:
        return [f"prepare.intensity: low ({rule['low']}) must be below high ({rule['high']})."]
    return []


def _split_ways(values: dict[str, Any]) -> list[str]:
    split = values["split"]
    set_too = [key for key in ("test", "subjects", "slices") if split[key] is not None]
    if split["list"] is not None and set_too:
        names = ", ".join(set_too)
        return [f"split.list: the list names the roles itself; set {names} to null."]
    return []


def _encoder_weights(values: dict[str, Any]) -> list[str]:
    train = values["train"]
    problems = []
    if not MODELS[train["model"]].pretrained:
        return []
    backbone = train["backbone"]
    if not BACKBONES[backbone].pretrained and train["sam_checkpoint"] is not None:
        problems.append(
            f"train.sam_checkpoint: {train['sam_checkpoint']!r} can't load into {backbone}, "
            "which has no SAM weights; set it to null or choose another backbone."
        )
    if train["sam_checkpoint"] is None and not train["train_encoder"]:
        problems.append(
            "train.train_encoder: false freezes an encoder whose weights are random "
            "(sam_checkpoint is null); set it to true or name a checkpoint."
        )
    return problems


def _needs_validation(values: dict[str, Any]) -> list[str]:
    train = values["train"]
    wanted = {
        "keep": train["keep"] == "best",
        "early_stopping": train["early_stopping"] is not None,
    }
    if train["validate_every"] > 0:
        return []
    return [
        f"train.{key}: {train[key]} needs validations; set train.validate_every to 1 or more."
        for key, asked in wanted.items()
        if asked
    ]


def _one_stage(values: dict[str, Any]) -> list[str]:
    model, stage = values["train"]["model"], values["evaluate"]["stage"]
    if stage in ("mean", *MODELS[model].stages):
        return []
    return [f"evaluate.stage: {model} has no {stage} stage; set it to mean, its only one."]


def _model_options(values: dict[str, Any]) -> list[str]:
    model, given = values["train"]["model"], values["train"]["model_options"] or {}
    known = MODELS[model].options
    problems = []
    for name, value in given.items():
        key = f"train.model_options.{name}"
        if name not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            problems.append(f"{key}: {model} has no such option, {there}; remove it.")
        elif problem := known[name].problem(value):
            problems.append(f"{key}: {problem} ({known[name].meaning}).")
    return problems


def _search_ranges(values: dict[str, Any]) -> list[str]:
    problems = []
    for name in ("dice_weight", "lambda_start"):
        if values["search"][name] is None:
            continue
        low, high = values["search"][name]
        if not 0 <= low <= high < 1:
            problems.append(f"search.{name}: [{low}, {high}] is not a range within [0, 1).")
    return problems


def _search_knobs(values: dict[str, Any]) -> list[str]:
    search, model = values["search"], values["train"]["model"]
    if not search["trials"]:
        return []
    missing = {
        "lora_rank": None if "lora_rank" in MODELS[model].takes else "no LoRA whose rank",
        "lambda_start": None if len(MODELS[model].stages) > 1 else "one stage, so no lambda that",
        "dice_weight": None,
    }
    problems = [
        f"search.{name}: {model} has {why} could be tuned; set it to null."
        for name, why in missing.items()
        if why is not None and search[name] is not None
    ]
    if all(search[name] is None for name in missing):
        problems.append(
            f"search.trials: {search['trials']} trials, but nothing to tune; give one of "
            f"{', '.join(f'search.{name}' for name in missing)} a range, or set search.trials to 0."
        )
    return problems


def _crop_range(values: dict[str, Any]) -> list[str]:
    low, high = values["train"]["augment"]["crop_side"]
    if not 0 < low <= high <= 1:
        return [f"train.augment.crop_side: [{low}, {high}] is not a range within (0, 1]."]
    return []


def _validation_slices(values: dict[str, Any]) -> list[str]:
    if values["split"]["validation"] > 0 or values["split"]["list"] is not None:
        return []
    return [
        f"{key}: {why}, but split.validation is 0; raise it or set {key} to 0."
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


def load(paths: Sequence[Path]) -> Params:
    """Parameters from one or more YAML files, each laid over the ones before."""
    merged = overlay({}, *(read_yaml(Path(path)) for path in paths))
    return validate(merged, " + ".join(str(path) for path in paths))

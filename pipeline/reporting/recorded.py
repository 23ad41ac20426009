"""The parameters that a run was made with, from its stages' provenance.

What a user's parameter file says now may be another thing: it can change after a training, and
another run can be named.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Params, stage_params
from pipeline.core.params.dotted import flat
from pipeline.core.params.load import overlay, validate

# stages that record what they read, in the order of the data flow
RECORDING = ("prepare", "split", "search", "train", "evaluate")
# what version 0.1.0 searched, by keys of the block search; the last two had [low, high]
OLD_KNOBS = ("lora_rank", "dice_weight", "lambda_start")


def recorded_params(given: Params, provenance: Mapping[str, Mapping[str, Any]]) -> Params:
    """The parameters of the stages, and the given ones where no stage has recorded any.

    Args:
        given: all parameters.
        provenance: stage to its provenance.json.

    Raises:
        UserError: recorded values that aren't allowed any more.
    """
    values = given.model_dump(mode="json")
    for stage in RECORDING:
        record = provenance.get(stage, {})
        if record.get("stage") == stage:
            for path, block in record.get("params", {}).items():
                if path == "search":
                    block = _as_now(block)
                for key in reversed(path.split(".")):
                    block = {key: block}
                values = overlay(values, block)
    return validate(values, "the run's parameters, the rest from --params")


def searched_space(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the search tried, from its provenance: key of `train` to choices or range."""
    search = _as_now(record.get("params", {}).get("search", {}))
    return {key: given for key, given in search.get("space", {}).items() if given is not None}


def _as_now(search: Mapping[str, Any]) -> dict[str, Any]:
    """The block search, where version 0.1.0 has recorded it as this one would have."""
    now = {key: value for key, value in search.items() if key not in OLD_KNOBS}
    old = {key: search[key] for key in OLD_KNOBS if key in search}
    if old:
        ranks, *ranges = OLD_KNOBS
        now["space"] = {ranks: old.get(ranks)}
        for key in ranges:
            ends = old.get(key)
            now["space"][key] = ends and {"low": ends[0], "high": ends[1]}
        # its trials were validated at their end alone
        now |= {"pruner": "none", "validate_every": 0}
    return now


def check_given(
    given: Params, provenance: Mapping[str, Mapping[str, Any]], stages: Iterable[str]
) -> None:
    """Refuse parameters other than those that stages were run with.

    Args:
        given: all parameters.
        provenance: stage to its provenance.json.
        stages: which to compare.

    Raises:
        UserError: names every key that differs, with both values.
    """
    problems = []
    for stage in stages:
        record = provenance.get(stage, {})
        if record.get("stage") != stage:
            continue
        now = flat(stage_params(given, stage))
        then = flat(record.get("params", {}))
        problems += [
            f"{key}: the {stage} stage was run with {then[key]!r}, the parameters now say "
            f"{value!r}; run it again, or give its parameters (--params)."
            for key, value in now.items()
            if key in then and then[key] != value
        ]
    if problems:
        raise UserError(problems)

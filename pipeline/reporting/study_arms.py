"""What the arms of a study set, what all runs have in common, and what the trainings cost."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from pipeline.core.console import duration
from pipeline.core.cost import Cost
from pipeline.core.params import search_space
from pipeline.core.params.dotted import flat
from pipeline.core.params.load import overlay
from pipeline.scoring.sheet import NONE
from pipeline.studies import words
from pipeline.studies.files import PHANTOMS, PREDICTIONS
from pipeline.studies.outcomes import Outcome
from pipeline.studies.plan import Run, Study

# keys of arms that change no model, in which a reader of tables has no interest
TECHNICAL = ("train.cache_embeddings", PREDICTIONS)
OF_FOLD = "test cases of a fold"
UNKNOWN = "unknown"  # of what ran and recorded nothing


def settings(study: Study) -> tuple[list[str], dict[str, list[str]]]:
    """What the arms set, as the columns and rows of a table.

    Returns:
        Keys that any arm sets, `words.ENCODER` in place of those of the encoder; arm to their
        values in words, as its runs have them.
    """
    overlays = dict(study.file.arms)
    if PHANTOMS in study.on:
        twin = study.file.phantoms.arms
        overlays = {arm: overlay(given, twin.get(arm, {})) for arm, given in overlays.items()}
    keys = list(dict.fromkeys(key for given in overlays.values() for key in flat(given)))
    if {*words.OF_ENCODER[:-1]} & {*keys}:
        keys = [words.ENCODER if key in words.OF_ENCODER else key for key in keys]
    keys = [key for key in dict.fromkeys(keys) if key not in TECHNICAL]
    runs = {run.arm: run for run in study.runs}
    return keys, {arm: [_setting(runs[arm], key) for key in keys] for arm in overlays}


def _setting(run: Run, key: str) -> str:
    """What a run has at a key; none where its model, or another tool, has no use for it."""
    block, _, name = key.partition(".")
    unused = block == "train" and search_space.lacking(name, run.params.train.model) is not None
    if unused or run.predictions is not None:
        return NONE
    return words.setting(run.params.model_dump(mode="json"), key)


def common(found: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Names and values of the facts in which all finished runs agree, in words."""
    facts = [outcome.facts for outcome in found if outcome.facts is not None]
    values = {name: {getattr(fact, name) for fact in facts} for name in words.FACTS}
    # a fold's test cases are not those of the arm
    of_folds = any(o.run.fold is not None for o in found)
    names = words.FACTS | ({"test_cases": OF_FOLD} if of_folds else {})
    return [
        (called, words.explained(name, next(iter(values[name]))))
        for name, called in names.items()
        if len(values[name]) == 1 and values[name] != {None}
    ]


def spent(finished: Mapping[str, Sequence[Outcome]]) -> str:
    """Device time, devices and days of all finished trainings, in words; "" without a record."""
    known = [cost for o in _works(finished) if (cost := Cost.read(o.folders["train"])) is not None]
    if not known:
        return ""
    days = sorted({cost.date for cost in known if cost.date is not None})
    when = f", {' to '.join(dict.fromkeys((days[0], days[-1])))}" if days else ""
    many = f"{len(known)} training{'' if len(known) == 1 else 's'}"
    time, where = duration(sum(cost.device_seconds for cost in known)), _devices(known)
    return f"{many}, {time} in all on {where}{when}."


def _works(arms: Mapping[str, Sequence[Outcome]]) -> list[Outcome]:
    """Finished trainings, of those that arms share one."""
    every = [o for found in arms.values() for o in found if o.done and o.run.predictions is None]
    return list({o.run.work: o for o in every}.values())


def _devices(costs: Sequence[Cost]) -> str:
    return ", ".join(sorted({cost.where for cost in costs}))


def costs(arms: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """What the finished trainings cost, arm by arm; what two arms share is in the total once.

    Returns:
        `rows`, the last one of all arms: `name`, `trainings`, `devices`, `wall` of one training,
        `total` of device time, `memory` at the peak, `scoring`, wall time of one evaluation, each
        in words.
    """
    rows = []
    trained = {arm: [o for o in found if o.run.predictions is None] for arm, found in arms.items()}
    for arm, found in trained.items():
        if arms[arm] and not found:
            continue  # scored alone: what its training cost is the other tool's to say
        rows.append(_cost(arm, [o for o in found if o.done]))
    rows.append(_cost("all, shared ones once", _works(arms)))
    return {"rows": rows}


def _cost(name: str, found: Sequence[Outcome]) -> dict[str, Any]:
    absent = UNKNOWN if found else NONE
    known, scored = (
        [cost for cost in (Cost.read(o.folders[stage]) for o in found) if cost is not None]
        for stage in ("train", "evaluate")
    )
    walls = [cost.seconds for cost in known]
    peaks = [cost.peak_memory_mib for cost in known if cost.peak_memory_mib is not None]
    total = duration(sum(cost.device_seconds for cost in known)) if known else absent
    if known and len(known) < len(found):
        total += f", of {len(known)} of them"
    return {
        "name": name,
        "trainings": len(found),
        "devices": _devices(known) or absent,
        "wall": _range(walls) or absent,
        "wall_seconds": mean(walls) if walls else None,
        "total": total,
        "total_seconds": sum(cost.device_seconds for cost in known) if known else None,
        "memory": f"{max(peaks):,} MiB" if peaks else absent,
        "scoring": _range([cost.seconds for cost in scored]) or absent,
    }


def _range(seconds: Sequence[float]) -> str:
    if not seconds:
        return ""
    low, middle, high = map(duration, (min(seconds), mean(seconds), max(seconds)))
    return middle if low == high else f"{middle} ({low} to {high})"

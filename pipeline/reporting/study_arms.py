"""What the arms of a study set, what all runs have in common, and what the trainings cost."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from pipeline.core.console import duration
from pipeline.core.cost import Cost
from pipeline.core.params import search_space
from pipeline.core.params.dotted import flat
from pipeline.core.params.load import overlay
from pipeline.reporting.page import model_title
from pipeline.studies.files import PHANTOMS, PREDICTIONS
from pipeline.studies.outcomes import Outcome
from pipeline.studies.plan import Run, Study

# keys of arms that change no model, in which a reader of tables has no interest
TECHNICAL = ("train.cache_embeddings", PREDICTIONS)
WORDS = {
    "model": "model",
    "backbone": "backbone",
    "side": "image side in pixels",
    "lora_rank": "LoRA rank",
    "batch": "effective batch",
    "stage": "scored stage",
    "convention": "convention",
    "split": "split",
    "train_slices": "labelled slices",
    "train_subjects": "of cases",
    "test_cases": "test cases",
    "device": "device",
    "tuned": "tuned",
}
OF_FOLD = "test cases of a fold"
NONE, UNKNOWN = "–", "unknown"


def settings(study: Study) -> tuple[list[str], dict[str, list[str]]]:
    """What the arms set, as the columns and rows of a table.

    Returns:
        Names of the keys that any arm sets; arm to their values, as its runs have them.
    """
    overlays = dict(study.file.arms)
    if PHANTOMS in study.on:
        twin = study.file.phantoms.arms
        overlays = {arm: overlay(given, twin.get(arm, {})) for arm, given in overlays.items()}
    keys = list(dict.fromkeys(key for given in overlays.values() for key in flat(given)))
    keys = [key for key in keys if key not in TECHNICAL]
    runs = {run.arm: run for run in study.runs}
    return [_word(key) for key in keys], {
        arm: [_setting(runs[arm], key) for key in keys] for arm in overlays
    }


def _setting(run: Run, key: str) -> str:
    """What a run has at a key; none where its model, or another tool, has no use for it."""
    block, _, name = key.partition(".")
    unused = block == "train" and search_space.lacking(name, run.params.train.model) is not None
    if unused or run.predictions is not None:
        return NONE
    return _shown(_value(run.params.model_dump(mode="json"), key), key)


def common(found: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Words and values of the facts in which all finished runs agree."""
    facts = [outcome.facts for outcome in found if outcome.facts is not None]
    values = {name: {getattr(fact, name) for fact in facts} for name in WORDS}
    # a fold's test cases are not those of the arm
    words = WORDS if all(o.run.fold is None for o in found) else WORDS | {"test_cases": OF_FOLD}
    return [
        (word, _fact(name, next(iter(values[name]))))
        for name, word in words.items()
        if len(values[name]) == 1 and values[name] != {None}
    ]


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
    works = {o.run.work: o for found in trained.values() for o in found if o.done}
    rows.append(_cost("all, each work once", list(works.values())))
    return {"rows": rows}


def _cost(name: str, found: Sequence[Outcome]) -> dict[str, Any]:
    known, scored = (
        [cost for cost in (Cost.read(o.folders[stage]) for o in found) if cost is not None]
        for stage in ("train", "evaluate")
    )
    walls = [cost.seconds for cost in known]
    peaks = [cost.peak_memory_mib for cost in known if cost.peak_memory_mib is not None]
    total = duration(sum(cost.device_seconds for cost in known)) if known else UNKNOWN
    if known and len(known) < len(found):
        total += f", of {len(known)} of them"
    return {
        "name": name,
        "trainings": len(found),
        "devices": ", ".join(sorted({cost.where for cost in known})) or UNKNOWN,
        "wall": _range(walls),
        "wall_seconds": mean(walls) if walls else None,
        "total": total,
        "total_seconds": sum(cost.device_seconds for cost in known) if known else None,
        "memory": f"{max(peaks):,} MiB" if peaks else UNKNOWN,
        "scoring": _range([cost.seconds for cost in scored]),
    }


def _range(seconds: Sequence[float]) -> str:
    if not seconds:
        return UNKNOWN
    if len(seconds) == 1:
        return duration(seconds[0])
    return f"{duration(mean(seconds))} ({duration(min(seconds))} to {duration(max(seconds))})"


def _fact(name: str, value: Any) -> str:
    if name == "split":
        return str(value)[:12]
    return _shown(value, f"train.{name}" if name == "model" else name)


def _shown(value: Any, key: str) -> str:
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "✓" if value else "✗"
    if key == "train.model":
        return model_title(value)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return str(value)


def _word(key: str) -> str:
    return WORDS.get(last := key.rpartition(".")[2], last.replace("_", " "))


def _value(values: Any, key: str) -> Any:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, Mapping) else None
    return values

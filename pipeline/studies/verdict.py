"""Whether a published number was reproduced, by one rule (docs/studies.md).

reproduced: the published number lies within our 95% interval; not reproduced: it doesn't. Cannot
say, whatever the numbers are: while runs of the arm are to do; with fewer than three seeds; where
too few cases count for an interval; where the interval is wider than `WIDEST`, since it would
agree with most numbers; on other data or parameters than the study's own. On phantoms there is
none.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.datasets.phantom import Phantom
from pipeline.scoring.bootstrap import FEWEST
from pipeline.studies import plan
from pipeline.studies.intervals import Scores
from pipeline.studies.outcomes import Outcome
from pipeline.studies.plan import Run, Study

REPRODUCED, NOT_REPRODUCED, CANNOT_SAY = "reproduced", "not reproduced", "cannot say"
# percentage points of Dice, voxels of HD95
WIDEST = 10.0
FEWEST_SEEDS = 3  # intervals over two cover far less than 95%
# parameters that say where things lie or how the work is done, not what is computed
HOW = {
    "dataset": {"root", "phantom"},
    "prepare": {"batch"},
    "train": {
        *("devices", "workers", "micro_batch", "compile", "gradient_checkpointing", "cache_mib"),
        *("precision", "tf32", "log_every", "checkpoint_minutes", "validate_every"),
        "snapshots",
    },
    "evaluate": {"batch_size", "audit"},
}
RUN = {"seed", "fold"}  # what the runs of an arm differ in
BLOCKS = ("dataset", "prepare", "split", "search", "train", "evaluate")


@dataclass(frozen=True)
class Verdict:
    """A verdict on one published number.

    Attributes:
        word: REPRODUCED, NOT_REPRODUCED or CANNOT_SAY.
        reason: in words.
    """

    word: str
    reason: str


def is_synthetic(study: Study) -> bool:
    """Whether the study is run on made volumes, of which no published number says anything."""
    return any(run.params.dataset.name == Phantom.name for run in study.runs)


def objections(study: Study) -> dict[str, str]:
    """Arm to why the published number isn't of the same work; arms without objection are absent.

    What a study is run on (`--on`) may change what is computed: the data, the encoder.
    """
    if not study.on:
        return {}
    defined = {run.arm: run for part in plan.load(study.name) for run in part.runs}
    found = {}
    for run in study.runs:
        if run.arm not in found and (changed := _changed(defined[run.arm], run)):
            found[run.arm] = f"run with another {', '.join(changed)} than the study's own"
    return found


def _changed(one: Run, other: Run) -> list[str]:
    """Names of the parameters in which two runs compute something else."""
    before, after = _computed(one), _computed(other)
    return [name for name, value in before.items() if after[name] != value]


def _computed(run: Run) -> dict[str, Any]:
    values: Mapping[str, Any] = run.params.model_dump(mode="json")
    found = {
        f"{block}.{key}": value
        for block in BLOCKS
        for key, value in values[block].items()
        if key not in RUN and key not in HOW.get(block, ())
    }
    # where the weights lie doesn't matter, whether there are any does
    found["train.sam_checkpoint"] = found["train.sam_checkpoint"] is not None
    return found


def unsettled(outcomes: Sequence[Outcome], scores: Scores) -> str | None:
    """Why an arm allows no verdict yet, whatever its numbers; None where it does.

    Args:
        outcomes: of all of the arm's runs.
        scores: of those that are finished.
    """
    todo = sum(not outcome.done for outcome in outcomes)
    if todo:
        return f"{todo} of {len(outcomes)} runs are to do"
    seeds = len({seed for _, seed in scores.runs})
    if seeds < FEWEST_SEEDS:
        return f"fewer than {FEWEST_SEEDS} seeds"
    return None


def verdict(published: float, low: float, high: float, objection: str | None = None) -> Verdict:
    """The verdict on a number.

    Args:
        published: the number, in the unit of the interval.
        low, high: our 95% interval, percent of Dice or voxels; NaN where there is none.
        objection: why none can be given, whatever the numbers.
    """
    if objection is not None:
        return Verdict(CANNOT_SAY, objection)
    if math.isnan(low) or math.isnan(high):
        return Verdict(CANNOT_SAY, f"fewer than {FEWEST} test cases count")
    if high - low > WIDEST:
        return Verdict(CANNOT_SAY, f"the interval is wider than {WIDEST:g}")
    if low <= published <= high:
        return Verdict(REPRODUCED, "the published number is within our interval")
    side = "below" if published < low else "above"
    return Verdict(NOT_REPRODUCED, f"the published number is {side} our interval")

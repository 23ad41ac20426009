"""How far a study is, and what is left of it: time and disk, from what its finished runs took."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from pipeline.core.cost import Cost
from pipeline.core.params.blocks import stage_params
from pipeline.core.run_folder import read_provenance
from pipeline.studies.plan import Run

DONE = {"train": "trained", "evaluate": "evaluated"}  # stages in their order, as words
SCORED = {"evaluate": "scored"}  # the same of predictions


def to_do(run: Run, places: Mapping[str, Path], last: str = "evaluate") -> str | None:
    """Why a run is to do, by the parameters of its outputs alone; None: it is done.

    Args:
        run: the run.
        places: stage to the folder of its outputs.
        last: the stage up to which it is looked at, of DONE.
    """
    stages = DONE if run.predictions is None else SCORED
    for stage, word in stages.items():
        recorded = read_provenance(places[stage])
        if not recorded:
            return f"not {word} yet"
        if recorded.get("params") != stage_params(run.params, stage):
            return f"{word} with other parameters"
        if stage == last:
            break
    return None


def is_done(run: Run, results: Path, last: str = "evaluate") -> bool:
    """Whether the run's outputs are there, up to a stage, with the run's own parameters."""
    return to_do(run, run.places(results), last) is None


def size(run: Run, results: Path) -> int:
    """Bytes of a run's outputs."""
    places = run.places(results)
    found = [path for name in ("train", "evaluate") for path in places[name].rglob("*")]
    return sum(path.stat().st_size for path in found if path.is_file())


@dataclass(frozen=True)
class Left:
    """What the work that is not done yet will take, estimated.

    Attributes:
        runs: trainings that are left, each work once.
        seconds: their device time; None before the first training is done.
        bytes: of all outputs that are missing; None before the first run is done.
    """

    runs: int
    seconds: float | None
    bytes: float | None


def left(runs: Sequence[Run], results: Path) -> Left:
    """What is left of some runs: an arm's costs where it has a finished run, else all runs'."""
    known: dict[str, list[float]] = {}
    trained = [run for run in runs if run.predictions is None]
    for run in trained:
        cost = Cost.read(run.places(results)["train"])
        if is_done(run, results, "train") and cost is not None:
            known.setdefault(run.arm, []).append(cost.device_seconds)
    todo = {run.work: run for run in trained if not is_done(run, results, "train")}
    total = None
    if known or not todo:
        every = [cost for costs in known.values() for cost in costs]
        total = sum(mean(known.get(run.arm, every)) for run in todo.values())
    done = [run for run in runs if is_done(run, results)]
    missing = len(runs) - len(done)
    disk = mean(size(run, results) for run in done) * missing if done else None
    return Left(len(todo), total, disk if missing else 0)

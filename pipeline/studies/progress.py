"""How far a study is, and what is left of it: time and disk, from what its finished runs took."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from pipeline.core import files
from pipeline.core.params.blocks import stage_params
from pipeline.core.run_folder import read_provenance
from pipeline.studies.plan import Run

COST = "cost.json"  # of a training


def is_done(run: Run, results: Path, stage: str = "evaluate") -> bool:
    """Whether the run's outputs are there, up to a stage, with the run's own parameters.

    Args:
        run, results: the run, and the folder of the stages' outputs.
        stage: "train" or "evaluate".
    """
    places = run.places(results)
    return all(
        read_provenance(places[name]).get("params") == stage_params(run.params, name)
        for name in (("train",) if stage == "train" else ("train", "evaluate"))
    )


def seconds(run: Run, results: Path) -> float | None:
    """Device time of a finished training, seconds; None where it isn't known."""
    try:
        cost = files.read_json(run.places(results)["train"] / COST)
        return float(cost["seconds"]) * int(cost["devices"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


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
    for run in runs:
        if is_done(run, results, "train") and (cost := seconds(run, results)) is not None:
            known.setdefault(run.arm, []).append(cost)
    todo = {run.work: run for run in runs if not is_done(run, results, "train")}
    total = None
    if known or not todo:
        every = [cost for costs in known.values() for cost in costs]
        total = sum(mean(known.get(run.arm, every)) for run in todo.values())
    done = [run for run in runs if is_done(run, results)]
    missing = len(runs) - len(done)
    disk = mean(size(run, results) for run in done) * missing if done else None
    return Left(len(todo), total, disk if missing else 0)

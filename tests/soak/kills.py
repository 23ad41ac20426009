"""SIGKILL at random moments: nothing outlives it, and the same command again ends alike."""

import random
import time
from pathlib import Path

from pipeline.core.run_folder import MODEL_FILES
from tests.pipeline.kills import kill_after, killed_parents
from tests.pipeline.trainings import LONGEST, command, train_lock
from tests.soak.outcome import Outcome
from tests.soak.stages import STAGES, Workspace

WEIGHTS = MODEL_FILES[1]
IN_A_ROW = 3  # kills before a run is let to its end
ONCE = ("search",)  # a trial whose process is killed twice has failed, and the outputs say so


def kill_stage(space: Workspace, stage: str, kills: int, seed: int = 0) -> Outcome:
    """Kill a stage again and again, and compare what it publishes in the end.

    Args:
        space: where the stages before it have run.
        stage: its name.
        kills: how often; up to IN_A_ROW in a row before it may finish.
        seed: of the moments, each between the start and the usual end.
    """
    chance = random.Random(f"{stage} {seed}")
    wanted, seconds = undisturbed(space, stage)
    done, failures = 0, []
    while done < kills:
        space.forget(stage)
        moments, survivors = [], []
        for _ in range(min(1 if stage in ONCE else IN_A_ROW, kills - done)):
            moments.append(chance.uniform(0, seconds))
            survivors += kill_after(space.start(stage), moments[-1])
            done += 1
        ended = space.start(stage).wait()
        found = space.published(stage)
        differing = sorted(name for name in wanted if found.get(name) != wanted[name])
        reasons = []
        if survivors:
            reasons.append(f"survived by {survivors}")
        if ended != 0:
            reasons.append(space.log(stage).strip()[-300:])
        elif differing:
            reasons.append(f"other bytes in {', '.join(differing)}")
        if reasons:
            when = ", ".join(f"{moment:.2f} s" for moment in moments)
            failures.append(f"{stage}, killed after {when}: {'; '.join(reasons)}")
    detail = f"{len(wanted)} files compared, undisturbed {seconds:.1f} s"
    return Outcome(f"SIGKILL of hsam {stage}, outputs equal", kills, tuple(failures), detail)


def undisturbed(space: Workspace, stage: str) -> tuple[dict[str, str], float]:
    """Hashes of the files that two undisturbed runs have in common, and the seconds of one."""
    hashes = []
    seconds = 0.0
    for _ in range(2):
        space.forget(stage)
        start = time.monotonic()
        space.finish(stage)
        seconds = time.monotonic() - start
        hashes.append(space.published(stage))
    first, second = hashes
    same = {name: value for name, value in first.items() if second.get(name) == value}
    assert same, f"{stage}: no file is the same in two runs"
    return same, seconds


def kill_stages(folder: Path, kills: int, stages: tuple[str, ...] = STAGES) -> list[Outcome]:
    """`kill_stage` for each stage in the order of a run, with `kills` shared among them."""
    space = Workspace(folder)
    outcomes = []
    for place, stage in enumerate(STAGES):
        if stage in stages:
            share = kills // len(stages) + (STAGES.index(stage) < kills % len(stages))
            outcomes.append(kill_stage(space, stage, share, seed=place))
        else:
            space.finish(stage)
    return outcomes


def kill_parents(space: Workspace, kills: int) -> Outcome:
    """Kill the parent of a training by two processes; neither may go on, nor the lock be free.

    Args:
        space: where the stages before training have run, its parameters asking for two devices.
        kills: how often, each from where the last one has left the training; it then ends.
    """
    failures, found = [], 0
    space.finish("train")
    wanted = space.published("train")[WEIGHTS]
    space.forget("train")
    runs = space.folder / "runs"
    program = command(space.folder / "results", runs)
    for seed in range(kills):
        try:
            found += killed_parents(program, lambda: train_lock(runs), LONGEST, 1, seed)
        except AssertionError as error:
            failures.append(f"seed {seed}: {error}")
    space.finish("train")
    if space.published("train")[WEIGHTS] != wanted:
        failures.append(f"after {kills} kills: other weights")
    what = "SIGKILL of the parent of a training by two processes, none left, weights equal"
    return Outcome(what, kills, tuple(failures), f"{found} processes had been started")

"""Many processes at once on one data set: nothing is lost, nothing is done by halves."""

from pipeline.shards.case import ShardReader
from tests.soak.outcome import Outcome
from tests.soak.stages import CASES, Workspace


def prepare_together(space: Workspace, rounds: int, processes: int = 4) -> Outcome:
    """Prepare every case by several processes at once, then the manifest.

    Args:
        space: with raw volumes.
        rounds: how often.
        processes: for each case.
    """
    space.forget("prepare")
    space.finish("prepare")
    wanted = space.published("prepare")
    failures = []
    for number in range(rounds):
        space.forget("prepare")
        cases = [f"img{case:04}" for case in range(1, CASES + 1)]
        started = [space.start("prepare", "--case", case) for case in cases * processes]
        codes = [process.wait() for process in started]
        space.finish("prepare")
        for path in sorted((space.folder / "results/prepare/shards").glob("*.parquet")):
            ShardReader(path).verify()
        if any(codes) or space.published("prepare") != wanted:
            failures.append(f"round {number}: exit codes {codes}, or other bytes")
    what = f"{processes * CASES} processes prepare {CASES} cases, {processes} each"
    return Outcome(what, rounds, tuple(failures))


def train_together(space: Workspace, rounds: int, processes: int = 3) -> Outcome:
    """Start one training several times: one process works, the others are refused or find it done.

    Args:
        space: where the stages before training have run.
        rounds: how often.
        processes: in each round.
    """
    failures = []
    for number in range(rounds):
        space.forget("train")
        started = [space.start("train") for _ in range(processes)]
        codes = sorted(process.wait() for process in started)
        space.finish("train")
        if codes[0] != 0 or not set(codes) <= {0, 2}:
            failures.append(f"round {number}: exit codes {codes}")
    return Outcome(f"{processes} processes start one training", rounds, tuple(failures))

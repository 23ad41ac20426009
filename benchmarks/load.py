"""A training step beside busy processes, by how long OpenMP's waiting threads spin.

    python benchmarks/load.py [--rounds 9] [--threads 2] [--seconds 2] [--busy 2] [--json load.json]

The pipeline's own step on the CPU, alone and beside other processes that compute without a pause,
with PyTorch's own way to wait ("spin"), the one that every `hsam` command chooses ("hsam",
`pipeline/core/cpus.py`) and OMP_WAIT_POLICY=PASSIVE ("sleep"). OpenMP reads its environment once,
so each way has a process of its own; they take turns. Ratios are medians over the rounds, against
the speed of "spin" alone. "Others" is the share of the machine that something else took before the
rounds: the ratios hold where it is small.
"""

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import mean, median
from typing import Any

import psutil
import torch
from measure import machine, options, report
from train import ours

from pipeline.core import cpus

CASES = (("vit_tiny", 128, 16), ("vit_b", 224, 2))  # backbone, image size, batch
SPINNER = (sys.executable, "-c", "while True: pass")
WAYS = ("spin", "hsam", "sleep")
MOMENT = 0.5  # seconds that new processes get to start, and that others are looked at

_step: list[Any] = []  # of this process


def _make(case: tuple[str, int, int]) -> None:
    _step.append(ours(*case, "cpu"))
    for _ in range(3):  # the first ones take longer
        _step[0]()


def _steps_per_second(seconds: float) -> float:
    start, count = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < seconds:
        _step[0]()
        count += 1
    return count / elapsed


@contextmanager
def waiting(way: str) -> Iterator[None]:
    """In the processes that start in the block, OpenMP's threads wait in this way."""
    before = dict(os.environ)
    for name in cpus.WAITING:
        os.environ.pop(name, None)
    if way == "hsam":
        cpus.set_thread_defaults()
    if way == "sleep":
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def beside(count: int) -> Iterator[None]:
    """While the block runs, so many other processes compute without a pause."""
    others = [subprocess.Popen(SPINNER) for _ in range(count)]
    try:
        time.sleep(MOMENT)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def beside_others(
    case: tuple[str, int, int], threads: int, rounds: int, seconds: float, busy: int
) -> list[dict[str, Any]]:
    """A row for each way to wait."""
    context = multiprocessing.get_context("spawn")
    speeds: dict[str, dict[str, list[float]]] = {way: {"idle": [], "busy": []} for way in WAYS}
    others = []
    with ExitStack() as stack:
        pools = {}
        for way in WAYS:
            with waiting(way):
                pool = context.Pool(1, torch.set_num_threads, (threads,))
            pools[way] = stack.enter_context(pool)
            pool.apply(_make, (case,))
        for _ in range(rounds):
            others.append(psutil.cpu_percent(MOMENT))
            for way, pool in pools.items():
                speeds[way]["idle"].append(pool.apply(_steps_per_second, (seconds,)))
            for way, pool in pools.items():
                with beside(busy):
                    speeds[way]["busy"].append(pool.apply(_steps_per_second, (seconds,)))
    backbone, image, batch = case
    return [
        {
            "backbone": backbone,
            "image": image,
            "batch": batch,
            "threads that wait": way,
            "alone, slices/s": batch * median(speeds[way]["idle"]),
            "beside others, slices/s": batch * median(speeds[way]["busy"]),
            "alone / spin alone": _ratio(speeds[way]["idle"], speeds["spin"]["idle"]),
            "beside others / spin alone": _ratio(speeds[way]["busy"], speeds["spin"]["idle"]),
            "others, %": mean(others),
        }
        for way in WAYS
    ]


def _ratio(above: list[float], below: list[float]) -> float:
    return median(a / b for a, b in zip(above, below, strict=True))


def main() -> None:
    arguments = options(
        __doc__,
        rounds=9,
        threads=2,
        seconds=(2, "seconds of each measurement"),
        busy=(2, "processes that compute beside the step"),
    )
    numbers = arguments.threads, arguments.rounds, arguments.seconds, arguments.busy
    rows = [row for case in CASES for row in beside_others(case, *numbers)]
    report({"machine": machine(arguments.threads), "Beside others": rows}, arguments.json)


if __name__ == "__main__":
    main()

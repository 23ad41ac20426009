"""What the benchmarks share: command line, timing, separate processes, tables."""

import argparse
import importlib.metadata
import json
import multiprocessing
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch


def options(doc: str, rounds: int, threads: int, **numbers: tuple[int, str]) -> argparse.Namespace:
    """The options of a benchmark's command line.

    Args:
        doc: the script's docstring.
        rounds, threads: defaults.
        numbers: default and help of further options.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="repetitions of each")
    parser.add_argument("--threads", type=int, default=threads, help="CPU threads of PyTorch")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    for name, (default, text) in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    return parser.parse_args()


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock time of one call, the device's queue included."""
    _wait()
    start = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def fastest(work: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The fastest of some rounds of each piece of work, in seconds, after a warm-up round.

    A round runs all of them one after the other, so that other load slows all of them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds + 1):  # the first is the warm-up
        for name, run in work.items():
            times[name].append(seconds(run))
    return {name: min(values[1:]) for name, values in times.items()}


def rounds_apart(
    makers: Mapping[str, tuple[Callable[..., Callable[[], object]], tuple[object, ...]]],
    threads: int,
    rounds: int,
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Time pieces of work in turn, each in a process of its own, and measure their memory.

    Args:
        makers: name to a function that returns the work, and the function's arguments; both are
            pickled.
        threads: PyTorch's threads in each process.
        rounds: repetitions of each, after a warm-up round.

    Returns:
        name to the seconds of every round, and name to the peak memory in GiB: allocated on the
        GPU where there is one, else resident.
    """
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pools = {
            name: stack.enter_context(context.Pool(1, torch.set_num_threads, (threads,)))
            for name in makers
        }
        for name, (make, arguments) in makers.items():
            pools[name].apply(_make, (make, arguments))
        run = {name: partial(pool.apply, _seconds_here) for name, pool in pools.items()}
        times: dict[str, list[float]] = {name: [] for name in makers}
        for _ in range(rounds + 1):  # the first is the warm-up
            for name, one in run.items():
                times[name].append(one())
        peaks = {name: pool.apply(_peak_here) for name, pool in pools.items()}
    return {name: values[1:] for name, values in times.items()}, peaks


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Median over the rounds of slow / fast; each round measured both, one after the other."""
    return median(a / b for a, b in zip(slow, fast, strict=True))


_work: list[Callable[[], object]] = []  # of this process


def _make(make: Callable[..., Callable[[], object]], arguments: tuple[object, ...]) -> None:
    _work.append(make(*arguments))


def _seconds_here() -> float:
    return seconds(_work[0])


def _peak_here() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else peak_gib()


def peak_gib() -> float:
    """Largest resident memory of this process so far, GiB.

    Linux only: `getrusage` would count what the parent held before this process was its own.
    """
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20  # KiB


def alone(work: Callable[..., Any], threads: int, *arguments: object) -> Any:
    """The result of `work(*arguments)` in a fresh process with so many threads."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, torch.set_num_threads, (threads,)) as pool:
        return pool.apply(work, arguments)


def machine(threads: int, *packages: str) -> dict[str, Any]:
    """Device, date and versions, to stand beside the numbers."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: importlib.metadata.version(name) for name in packages},
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table."""
    shown = [
        [f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()]
        for row in rows
    ]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *shown]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def report(result: Mapping[str, Any], json_file: Path | None) -> None:
    """Print every list of rows as a table under its name; write all of it as JSON."""
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items() if value))
    for title, rows in result.items():
        if title != "machine":
            print(f"\n{title}\n\n{table(rows)}")
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n")

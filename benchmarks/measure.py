"""What the benchmarks share: options, clocks, the matrix rate, fresh processes, tables."""

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

SIDE = 2048  # of the matrices that the rate is measured with


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
    """Seconds of each piece of work: measured in turn, after a warm-up, the fastest round kept.

    Taking turns lets a busy neighbour harm all of them alike.
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
    """Pieces of work measured in turn, each in a process of its own, whose memory is told as well.

    Args:
        makers: of each name, what makes the work, and its arguments; both can be pickled.
        threads: of PyTorch, in each process.
        rounds: repetitions of each, after a warm-up.

    Returns:
        seconds of every round, and peak memory in GiB: of the GPU, or of the process on the CPU.
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
    """How many times faster: the median over the rounds, for both were measured side by side."""
    return median(a / b for a, b in zip(slow, fast, strict=True))


_here: list[Callable[[], object]] = []  # the work of a process


def _make(make: Callable[..., Callable[[], object]], arguments: tuple[object, ...]) -> None:
    _here.append(make(*arguments))


def _seconds_here() -> float:
    return seconds(_here[0])


def _peak_here() -> float:
    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else peak_gib()


def matrix_work(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Callable[[], object]:
    """A product of two SIDE x SIDE matrices: the rate that others are shares of."""
    a, b, out = (torch.rand(SIDE, SIDE, device=device).to(dtype) for _ in range(3))
    return lambda: torch.mm(a, b, out=out)


MATRIX_FLOPS = 2 * SIDE**3


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

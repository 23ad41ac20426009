"""What keeping freed memory saves on the CPU (`pipeline.core.cpus.keep_freed_memory`).

    python benchmarks/memory.py [--rounds 5] [--threads 2] [--json memory.json]

Passes of an image encoder, as prediction and the embeddings of a frozen one run them, with memory
as glibc hands it out by itself and as the pipeline's commands have it kept. Each way has a process
of its own, and they take turns; the ratio is the median over the rounds.
"""

from collections.abc import Callable

from encoders import forward
from measure import machine, options, ratio, report, rounds_apart

from pipeline.core import cpus

CASES = (("litemedsam", 128, 8), ("litemedsam", 256, 8), ("vit_b", 224, 2))  # side, slices


def work(backbone: str, side: int, batch: int, kept: bool) -> Callable[[], object]:
    """A pass, in a process that keeps freed memory or doesn't."""
    if kept:
        cpus.keep_freed_memory()
    return forward(backbone, side, batch, "cpu")


def row(backbone: str, side: int, batch: int, threads: int, rounds: int) -> dict:
    """One line of the table."""
    case = backbone, side, batch
    makers = {"glibc": (work, (*case, False)), "kept": (work, (*case, True))}
    times, peaks = rounds_apart(makers, threads, rounds)
    return {
        **{"backbone": backbone, "image": side, "slices": batch},
        **{f"{name}, s": min(times[name]) for name in makers},
        "ratio": ratio(times["glibc"], times["kept"]),
        **{f"{name}, peak GiB": peaks[name] for name in makers},
    }


if __name__ == "__main__":
    arguments = options(__doc__, rounds=5, threads=2)
    rows = [row(*case, arguments.threads, arguments.rounds) for case in CASES]
    report({"machine": machine(arguments.threads), "Freed memory": rows}, arguments.json)

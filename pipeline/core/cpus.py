"""The CPU cores of this process, and how OpenMP's threads use them.

OpenMP reads its environment once, when PyTorch loads it; processes started later inherit it.
"""

import os

# how waiting threads wait: libgomp (Linux) reads the first two, LLVM's (macOS) the first and last
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# turns of the loop in which a libgomp thread waits before it sleeps: tens of microseconds, enough
# from one operator of a model to the next (benchmarks/load.py)
TURNS = 10_000


def usable() -> int:
    """Cores that this process may run on, at least 1; all of them where no system call tells."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_thread_defaults() -> None:
    """Choose how long OpenMP's waiting threads spin, and how many there are.

    A user's own setting wins. libgomp's default is thirty times as long: on a busy machine, a
    thread that spins takes the core from one that has work to do. Call it before PyTorch is
    imported.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["GOMP_SPINCOUNT"] = str(TURNS)
    # as many threads as Snakemake sets with --cores all, for the last bit depends on their number
    os.environ.setdefault("OMP_NUM_THREADS", str(usable()))

"""The CPU cores of this process, and how OpenMP's threads use them.

OpenMP reads its environment once, when PyTorch loads it; processes started later inherit it.
"""

import os

# libgomp (Linux) reads the first two, LLVM's OpenMP (macOS) the first and the last
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def usable() -> int:
    """Cores that this process may run on, at least 1; all of them where no system call tells."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_thread_defaults() -> None:
    """Choose how OpenMP's threads wait and how many there are; a user's own setting wins.

    Waiting threads sleep. By default they spin, and on a busy machine each spinning thread takes
    the core from a thread that has work to do. Call it before PyTorch is imported.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    # as many threads as Snakemake sets with --cores all, for the last bit depends on their number
    os.environ.setdefault("OMP_NUM_THREADS", str(usable()))

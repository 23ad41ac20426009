"""The CPU cores of this process, how OpenMP's threads use them, and the memory of CPU tensors.

OpenMP reads its environment once, when PyTorch loads it; processes started later inherit it.
"""

import ctypes
import os

# how waiting threads wait: libgomp (Linux) reads the first two, LLVM's (macOS) the first and last
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# turns of the loop in which a libgomp thread waits before it sleeps: tens of microseconds, enough
# from one operator of a model to the next (benchmarks/load.py)
TURNS = 10_000
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's numbers, from malloc.h
KEPT = 2**30  # bytes: of a block that is kept, and of free memory at the heap's end


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


def keep_freed_memory() -> None:
    """Have the C library keep the memory that a process frees, for what it allocates next.

    On the CPU, PyTorch takes the memory of every tensor from the C library. glibc gives large
    blocks back to the kernel when they are freed, which clears every page again for the next
    operator: up to a third of an encoder's pass (benchmarks/memory.py). Only for processes that run
    a network: they need as much memory again at once, and end soon. A user's own setting of
    glibc's allocator wins; other C libraries are left as they are.
    """
    mine = any(name.startswith("MALLOC_") for name in os.environ)
    if mine or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or os.name != "posix":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # some refuse so large a block on the heap; the other option alone would cost time
    if mallopt is not None and mallopt(MMAP_THRESHOLD, KEPT):
        mallopt(TRIM_THRESHOLD, KEPT)

"""Locks on files between processes; the kernel frees them, however the process ended."""

import os
from collections.abc import Callable
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a name for a module or nothing

Release = Callable[[], None]
# whether the processes that were forked from the one that took a lock hold it too
CHILDREN_HOLD = fcntl is not None


def try_lock(path: Path, *, inheritable: bool = False) -> Release | None:
    """Lock a file for this process, without waiting.

    On Linux and macOS the lock is held until this process and all that were forked from it are
    gone; on Windows until this process is.

    Args:
        path: the file, created where it is missing; on a local disk.
        inheritable: a program that this process starts in its place (`os.exec*`) holds it too.

    Returns:
        What releases the lock, to be kept for as long as it is needed; None: another process,
        or another call in this one, holds it.
    """
    if fcntl is None:
        return _try_filelock(path)
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    os.set_inheritable(lock, inheritable)
    return lambda: os.close(lock)


def _try_filelock(path: Path) -> Release | None:
    import filelock

    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        return None
    return lock.release

"""Locks on files between processes; the kernel frees them, however the process ended."""

import os
from collections.abc import Callable
from multiprocessing import reduction
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # a name for a module or nothing

Release = Callable[[], None]
# whether the processes that were started from the one that took a lock can hold it too
CHILDREN_HOLD = fcntl is not None

_held: set[int] = set()  # descriptors of the files that this process has locked


def try_lock(path: Path, *, shared: bool = False) -> Release | None:
    """Lock a file for this process, without waiting.

    On Linux and macOS the lock is held until this process, all that were forked from it and those
    that it was handed to (`handed`) are gone; on Windows until this process is.

    Args:
        path: the file, created where it is missing.
        shared: with others that share it; on Windows nobody does.

    Returns:
        What releases the lock, to be kept for as long as it is needed; None: another process,
        or another call in this one, holds it.

    Raises:
        UserError: the file system has no locks.
    """
    if fcntl is None:
        return _try_filelock(path)
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        except OSError as error:
            os.close(lock)
            reason = str(error.strerror or error).lower()
            raise UserError(
                f"{path}: its file system gives no locks ({reason}), without which two processes "
                "could work on one thing; mount it with them, or work on another."
            ) from None
        if _is_at(path, lock):
            break
        os.close(lock)  # it was removed, or replaced, before it was locked
    _held.add(lock)

    def release() -> None:
        _held.discard(lock)
        os.close(lock)

    return release


def handed() -> tuple[Any, ...]:
    """All locks of this process, to be pickled with a process that is being spawned."""
    return tuple(reduction.DupFd(lock) for lock in sorted(_held))


def take_over(locks: tuple[Any, ...]) -> None:
    """In a spawned process: hold the locks that `handed` gave it, until it ends."""
    for lock in locks:
        descriptor = lock.detach()
        os.set_inheritable(descriptor, False)
        _held.add(descriptor)


def _is_at(path: Path, lock: int) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        there, locked = os.stat(path), os.fstat(lock)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (locked.st_dev, locked.st_ino)


def _try_filelock(path: Path) -> Release | None:
    import filelock

    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        return None
    return lock.release

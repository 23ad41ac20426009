"""Processes started from this one: they end when it ends, and hold its locks until they do.

A training's processes that outlived a killed parent would go on writing into a run folder, and on
using a GPU, that count as free.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any

from pipeline.core import locks

WATCH_SECONDS = 0.5
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def bind() -> None:
    """Every process that is spawned from here, from now on, follows this one and holds its locks.

    It does so before it imports what it will run, which may take seconds. Forked processes hold the
    locks as they are; they call `start_worker`.
    """
    for kind in (SpawnProcess, multiprocessing.Process):  # the latter where spawning is the default
        ForkingPickler.register(kind, _bound)


def follow(parent: int) -> None:
    """End this process as soon as its parent has ended, however that was.

    Args:
        parent: process id, given by the parent itself: it may be gone when this is called.
    """
    if sys.platform == "linux":
        # the kernel kills this process together with the thread that started it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if _is_gone(parent):
        os._exit(1)
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def start_worker(worker: int = 0) -> None:
    """In a process that reads for a training: follow it, and heed its SIGTERM alone.

    A cluster or `timeout` sends SIGTERM to all processes of a job. The training then still needs
    its workers, to finish the step.

    Args:
        worker: its number; PyTorch hands it to what starts a worker.
    """
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        raise RuntimeError("not in a process that another one started")
    if hasattr(signal, "sigtimedwait"):  # macOS has none
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_heed, args=(parent.pid,), daemon=True).start()
    follow(parent.pid)


def _bound(process: BaseProcess) -> tuple[Any, ...]:
    """How a process is pickled for the interpreter that will run it: `_begin` comes first."""
    return _begin, (type(process), os.getpid(), locks.handed()), vars(process)


def _begin(kind: type[BaseProcess], parent: int, held: tuple[Any, ...]) -> BaseProcess:
    """In a spawned process, before anything else of it is unpickled."""
    bind()  # a rank's data workers are spawned as well
    locks.take_over(held)
    follow(parent)
    return kind.__new__(kind)


def _is_gone(parent: int) -> bool:
    if os.name == "posix":
        return os.getppid() != parent
    import psutil  # on Windows a process keeps the id of the parent that is gone

    return not psutil.pid_exists(parent)


def _watch(parent: int) -> None:
    while not _is_gone(parent):
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def _heed(parent: int) -> None:
    while True:
        sent = signal.sigwaitinfo({signal.SIGTERM})
        if sent.si_pid == parent:
            os._exit(0)

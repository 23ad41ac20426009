"""Signals that ask a training to stop: it finishes its step, keeps its state and ends."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ASKING = (signal.SIGTERM, signal.SIGINT)
WATCH_SECONDS = 0.5


class Stop:
    """Whether the process was asked to stop.

    Attributes:
        signal: number of the signal that asked; None so far.
    """

    signal: int | None = None

    def ask(self, number: int, frame: object = None) -> None:
        """A signal handler; a second Ctrl-C doesn't wait for the step."""
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number


@contextmanager
def listening() -> Iterator[Stop]:
    """A `Stop` that SIGTERM and SIGINT reach while the block runs; not in a side thread."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in ASKING}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow_parent(worker: int = 0) -> None:
    """In a worker process: end when the parent ends or sends SIGTERM; ignore others' SIGTERM.

    A cluster or `timeout` sends SIGTERM to all processes of a job. The training then still needs
    its workers, to finish the step. And a worker that outlived a killed training would hold the
    lock of its run folder.

    Args:
        worker: its number; PyTorch hands it to what starts a worker.
    """
    if hasattr(signal, "sigtimedwait"):  # macOS has none
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(parent: int) -> None:
    while True:
        sent = signal.sigtimedwait({signal.SIGTERM}, WATCH_SECONDS)
        if os.getppid() != parent or (sent is not None and sent.si_pid == parent):
            os._exit(0)

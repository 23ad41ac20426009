"""Signals that ask a training to stop: it finishes its step, keeps its state and ends."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ASKING = (signal.SIGTERM, signal.SIGINT)
GRACE = 5.0  # seconds that a wait may still last after the signal


class WaitEnded(Exception):
    """What was waited for didn't come, and a signal asked the process to stop."""


class Stop:
    """Whether the process was asked to stop.

    Attributes:
        signal: number of the signal that asked; None so far.
    """

    signal: int | None = None
    _waiting = False

    def ask(self, number: int, frame: object = None) -> None:
        """A signal handler; a second Ctrl-C doesn't wait for the step."""
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        if self._waiting:
            _alarm(GRACE)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside the block, a signal ends the wait after GRACE seconds.

        Raises:
            WaitEnded: it did; where the system has no alarms (Windows), never.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._waiting = True
        if self.signal is not None:
            _alarm(GRACE)
        try:
            yield
        finally:
            self._waiting = False
            _alarm(0)


@contextmanager
def listening() -> Iterator[Stop]:
    """A `Stop` that SIGTERM and SIGINT reach while the block runs; not in a side thread."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handlers: dict[signal.Signals, Callable[[int, Any], None]] = dict.fromkeys(ASKING, stop.ask)
    if hasattr(signal, "SIGALRM"):
        handlers[signal.SIGALRM] = _end_wait
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _alarm(seconds: float) -> None:
    """Send this process SIGALRM after some seconds; 0: don't."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _end_wait(number: int, frame: object) -> None:
    raise WaitEnded

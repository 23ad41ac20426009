"""Signals that ask a training to stop: it finishes its step, keeps its state and ends."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

ASKING = (signal.SIGTERM, signal.SIGINT)
GRACE = 5.0  # seconds that a wait may still last after the signal
LOOK_SECONDS = 0.2  # between two looks, during a wait, at whether it may go on


class WaitEnded(Exception):
    """What was waited for didn't come, and a signal asked the process to stop."""


class Stop:
    """Whether the process was asked to stop.

    Attributes:
        signal: number of the signal that asked; None so far.
    """

    signal: int | None = None
    # time.monotonic() of the signal, and of the beginning of the wait
    _asked_at = math.inf
    _waiting_since = 0.0

    def ask(self, number: int, frame: object = None) -> None:
        """A signal handler; a second Ctrl-C doesn't wait for the step."""
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        self._asked_at = time.monotonic()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside the block, a signal ends the wait after GRACE seconds.

        Raises:
            WaitEnded: it did; where the system has no alarms (Windows), never.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._waiting_since = time.monotonic()
        # again and again: one alarm can be lost, in another thread or in a finalizer
        _alarm(LOOK_SECONDS)
        try:
            yield
        finally:
            _alarm(0)

    def look(self, number: int, frame: object = None) -> None:
        """The handler of SIGALRM: ends a wait that lasts GRACE seconds since it was to stop."""
        if time.monotonic() - max(self._asked_at, self._waiting_since) >= GRACE:
            raise WaitEnded


@contextmanager
def listening() -> Iterator[Stop]:
    """A `Stop` that SIGTERM and SIGINT reach while the block runs; not in a side thread."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    handlers: dict[signal.Signals, Callable[[int, Any], None]] = dict.fromkeys(ASKING, stop.ask)
    if hasattr(signal, "SIGALRM"):
        handlers[signal.SIGALRM] = stop.look
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _alarm(seconds: float) -> None:
    """Send this process SIGALRM every so many seconds; 0: never again."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds, seconds)

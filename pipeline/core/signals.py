"""Signals that ask a training to stop: it finishes its step, keeps its state and ends."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

ASKING = (signal.SIGTERM, signal.SIGINT)


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

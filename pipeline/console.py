"""Progress with time left: a live bar on a terminal, lines now and then in a log file."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)


class Steps:
    """Counts finished steps of one kind of work; `advance` says what the last one gave."""

    def __init__(self, title: str, total: int, done: int, bar: Progress | None) -> None:
        self._title, self._total, self._done, self._bar = title, total, done, bar
        self._first, self._start = done, time.monotonic()
        self._task = None if bar is None else bar.add_task(title, total=total, completed=done)

    def advance(self, note: str = "") -> None:
        """One more step is done."""
        self._done += 1
        if self._bar is not None:
            title = f"{self._title}  {note}" if note else self._title
            self._bar.update(self._task, advance=1, description=title)
            return
        elapsed = time.monotonic() - self._start
        left = elapsed / (self._done - self._first) * (self._total - self._done)
        text = f"{self._title} {self._done}/{self._total}"
        print(f"{text}  {note}  {_clock(left)} left", file=sys.stderr, flush=True)


@contextmanager
def steps(title: str, total: int, done: int = 0) -> Iterator[Steps]:
    """Progress over `total` steps, of which `done` were there before."""
    if not console.is_terminal:
        yield Steps(title, total, done, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        yield Steps(title, total, done, bar)


def say(text: str) -> None:
    """One plain line for people, on standard error."""
    print(text, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""What people see: progress with time left and tables, live on a terminal, plain in a log file."""

import math
import sys
import time
from collections.abc import Iterator, Mapping
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
from rich.table import Column, Table

console = Console(stderr=True)
WORDS = 110  # columns that a training's line takes without its bar


class Steps:
    """Counts finished steps of one kind of work; `advance` says what the last one gave."""

    def __init__(
        self, title: str, total: int, done: int, bar: Progress | None, pause: float
    ) -> None:
        self._title, self._total, self._done, self._bar = title, total, done, bar
        self._first, self._start = done, time.monotonic()
        self._pause, self._last = pause, -math.inf
        self._task = None if bar is None else bar.add_task(title, total=total, completed=done)

    def advance(self, note: str = "", count: int = 1) -> None:
        """`count` more steps are done."""
        self._done += count
        if math.isinf(self._pause):
            return
        if self._bar is not None and self._task is not None:
            title = f"{self._title}  {note}" if note else self._title
            self._bar.update(self._task, advance=count, description=title)
            return
        now = time.monotonic()
        if now - self._last < self._pause and self._done < self._total:
            return
        self._last, elapsed = now, now - self._start
        left = elapsed / (self._done - self._first) * (self._total - self._done)
        text = f"{self._title} {self._done}/{self._total}"
        print(f"{text}  {note}  {_clock(left)} left", file=sys.stderr, flush=True)


@contextmanager
def steps(
    title: str, total: int, done: int = 0, pause: float = 0, *, shown: bool = True
) -> Iterator[Steps]:
    """Progress over `total` steps, of which `done` were there before.

    In a log file lines come `pause` seconds apart or more, and one at the end; with `shown` false
    there are none at all.
    """
    if not shown or not console.is_terminal:
        yield Steps(title, total, done, None, pause if shown else math.inf)
        return
    # on a narrow terminal the words take a second line, and no number is cut off
    whole = Column(no_wrap=True)
    columns = (
        TextColumn("{task.description}", table_column=Column()),
        BarColumn(min(40, max(8, console.width - WORDS)), table_column=whole),
        MofNCompleteColumn(table_column=whole),
        TimeElapsedColumn(table_column=whole),
        TimeRemainingColumn(table_column=whole),
    )
    with Progress(*columns, console=console) as bar:
        yield Steps(title, total, done, bar, pause)


def show_table(title: str, rows: Mapping[str, str]) -> None:
    """Names and values: a table on a terminal, a line each in a log file."""
    if not console.is_terminal:
        for name, value in rows.items():
            say(f"{title}: {name}: {value}")
        return
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)


def say(text: str) -> None:
    """One plain line for people, on standard error."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """A length of time in the unit that suits it: "40 seconds", "2.5 minutes", "12.0 hours"."""
    if seconds < 60:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

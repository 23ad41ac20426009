"""What people see: progress with time left and tables, live on a terminal, plain in a log file."""

import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

console = Console(stderr=True)
# widths in columns
TEXT_WIDTH = 97  # a training's line without its bar
MIN_BAR, MAX_BAR = 4, 40
TIME_WIDTH = len("0:00:00")
LINE_SECONDS = 15  # between two lines of progress in a log file
LOG_COLUMNS = 200  # of a table in a log file
ELAPSED_FROM = 100  # the narrowest terminal that shows the elapsed time too


@dataclass(frozen=True)
class Left:
    """What is left of some work.

    Attributes:
        seconds: of what is known.
        without: what else there is to do, of unknown length: "3 validations".
    """

    seconds: float
    without: str = ""


class Steps:
    """Counts finished steps of one kind of work; `advance` says what the last one gave.

    Args:
        title: names the work.
        total, done: steps in all, and those that were done before.
        bar: the live bar of a terminal; None: lines of a log file.
        room: columns beside the bar for title and notes.
        pause: least seconds between two lines of a log file; infinite: no lines at all.
    """

    def __init__(
        self, title: str, total: int, done: int, bar: Progress | None, room: int, pause: float
    ) -> None:
        self._title, self._total, self._done, self._bar = title, total, done, bar
        self._room = room
        self._first, self._start = done, time.monotonic()
        self._pause, self._last = pause, -math.inf
        self._task = None if bar is None else bar.add_task(title, total=total, completed=done)

    def advance(
        self, *notes: str, count: int = 1, left: Left | None = None, always: bool = False
    ) -> None:
        """`count` more steps are done; of the notes, a bar shows the first ones that fit.

        Args:
            notes: what they gave.
            count: their number; 0: the notes have changed.
            left: None: for each step that is left, the mean time of those that were done.
            always: in a log file too, however short the time since the last line.
        """
        self._done += count
        if math.isinf(self._pause):
            return
        without = f"without {left.without}" if left is not None and left.without else ""
        now = time.monotonic()
        if self._bar is not None and self._task is not None:
            shown = _fitting((self._title, *notes, *filter(None, [without])), self._room)
            end = None if left is None else now + left.seconds
            self._bar.update(self._task, advance=count, description=shown, end=end)
            return
        over = self._done >= self._total and (left is None or left == Left(0))
        if now - self._last < self._pause and not (over or always):
            return
        self._last = now
        if left is None:
            mean = (now - self._start) / (self._done - self._first)
            left = Left(mean * (self._total - self._done))
        text = f"{self._title} {self._done}/{self._total}"
        say("  ".join((text, *notes, f"{_clock(left.seconds)} left {without}".rstrip())))


class _TimeLeft(TimeRemainingColumn):
    """The time left that `Steps.advance` was told, as it runs down; else Rich's own estimate."""

    def render(self, task: Task) -> Text:
        end = task.fields.get("end")
        if end is None:
            return super().render(task)
        seconds = timedelta(seconds=max(0, round(end - time.monotonic())))
        return Text(str(seconds), style="progress.remaining")


@contextmanager
def steps(
    title: str, total: int, done: int = 0, pause: float = 0, *, shown: bool = True
) -> Iterator[Steps]:
    """Progress over `total` steps, of which `done` were there before.

    In a log file lines come `pause` seconds apart or more, and one at the end; with `shown` false
    there are none at all.
    """
    if not shown or not console.is_terminal:
        yield Steps(title, total, done, None, 0, pause if shown else math.inf)
        return
    one_line = Column(no_wrap=True)
    bar_width = min(MAX_BAR, max(MIN_BAR, console.width - TEXT_WIDTH))
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}", table_column=one_line),
        BarColumn(bar_width, table_column=one_line),
        MofNCompleteColumn(table_column=one_line),
    ]
    if console.width >= ELAPSED_FROM:
        columns.append(TimeElapsedColumn(table_column=one_line))
    columns.append(_TimeLeft(table_column=one_line))
    times = (len(columns) - 3) * (1 + TIME_WIDTH)
    room = console.width - (1 + bar_width) - (1 + len(f"{total}/{total}")) - times
    with Progress(*columns, console=console) as bar:
        yield Steps(title, total, done, bar, room, pause)


def table_console() -> Console:
    """A console on standard output for tables; a log file has no width to fit into."""
    found = Console()
    return found if found.is_terminal else Console(width=LOG_COLUMNS)


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
        whole = max(1, round(seconds))
        return f"{whole} second{'s' * (whole != 1)}"
    return f"{seconds / 60:.1f} minutes" if seconds < 3600 else f"{seconds / 3600:.1f} hours"


def _fitting(parts: tuple[str, ...], room: int) -> str:
    """The first parts, as many as fit, and the first one in any case."""
    text, *others = parts
    for part in others:
        if len(text) + 2 + len(part) > room:
            break
        text += f"  {part}"
    return text


def _clock(seconds: float) -> str:
    minutes, seconds_left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds_left:02}" if hours else f"{minutes}:{seconds_left:02}"

"""The trials of a search as records and as tables."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import files

# columns before and behind those of what was searched
ABOUT = ("number", "state", "value")
COST = ("epochs", "seconds", "device", "worker", "attempt", "study_number", "reason")
TYPES = {
    "number": pa.int32(),
    "state": pa.string(),
    "value": pa.float64(),
    "epochs": pa.int32(),
    "seconds": pa.float64(),
    "device": pa.string(),
    "worker": pa.int32(),
    "attempt": pa.int32(),
    "study_number": pa.int32(),
    "reason": pa.string(),
}


class Pruned(Exception):
    """The trial is worse than others were at the same epoch, and stops.

    Attributes:
        dice: mean Dice of the validation.
    """

    def __init__(self, epoch: int, dice: float) -> None:
        self.dice = dice
        super().__init__(f"stopped after epoch {epoch}, where others were better")


@dataclass(frozen=True)
class Outcome:
    """How a trial's training ended.

    Attributes:
        value: mean Dice on the validation cases; None: it failed.
        reason: why it failed or was pruned, one sentence; empty where it wasn't.
        pruned: it was stopped early; `value` is of its last validation.
    """

    value: float | None
    reason: str = ""
    pruned: bool = False


@dataclass(frozen=True)
class Trial:
    """A trial that came to an end: a row of the table.

    Attributes:
        number: from 0; the second attempt at a trial whose process was killed has the same.
        state: complete, pruned or failed.
        value: mean Dice on the validation cases, of a pruned one at its last validation.
        values: dotted key of `train` to the value that was tried.
        epochs: after which it was validated last; None: never.
        seconds: wall time; None: its process was killed.
        device: a GPU's name or CPU.
        worker: number of the worker.
        attempt: 1, or 2 after a kill.
        study_number: its number in Optuna's study, as optuna-dashboard shows it.
        reason: why it failed or was pruned.
    """

    number: int
    state: str
    value: float | None
    values: dict[str, Any] = field(default_factory=dict)
    epochs: int | None = None
    seconds: float | None = None
    device: str | None = None
    worker: int | None = None
    attempt: int = 1
    study_number: int = 0
    reason: str = ""

    def row(self, knobs: Sequence[str]) -> dict[str, Any]:
        """Column to value."""
        tried = {key: self.values.get(key) for key in knobs}
        return (
            {name: getattr(self, name) for name in ABOUT}
            | tried
            | {name: getattr(self, name) for name in COST}
        )


def best(trials: Iterable[Trial]) -> Trial | None:
    """The complete trial with the highest Dice, the first of equals; None: there is none."""
    complete = [trial for trial in trials if trial.state == "complete"]
    return max(complete, key=lambda trial: trial.value or 0.0, default=None)


def write_tables(trials: Sequence[Trial], knobs: Sequence[str], path: Path) -> None:
    """Write `<path>.csv` and `<path>.parquet`, a row a trial, one column for each of `knobs`."""
    rows = [trial.row(knobs) for trial in trials]
    columns = [*ABOUT, *knobs, *COST]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(Path(f"{path}.csv"), text.getvalue())
    arrays = {name: _array(name, [row[name] for row in rows]) for name in columns}
    with files.atomic_path(Path(f"{path}.parquet")) as temporary:
        pq.write_table(pa.table(arrays), temporary)


def _array(name: str, values: list[Any]) -> pa.Array:
    """A column; what was searched may mix numbers and names, which are then all texts."""
    try:
        return pa.array(values, TYPES.get(name))
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values], pa.string())

"""The journal of a search: its finished trials, a line each, in the order of their numbers.

Every line carries its own digest. A line that a killed process or a damaged disk left unreadable
costs its own trial alone, which is run again and comes out the same.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.core.console import say

DIGEST = "digest"


@dataclass(frozen=True)
class Finished:
    """A trial that came to an end.

    Attributes:
        number: from 0.
        values: parameter to the value that was tried.
        value: mean Dice on the validation cases; None: the trial failed.
        reason: why it failed, one sentence; empty where it didn't.
    """

    number: int
    values: dict[str, Any]
    value: float | None
    reason: str = ""

    @property
    def state(self) -> str:
        """Complete or failed."""
        return "failed" if self.value is None else "complete"


def read_journal(path: Path) -> dict[int, Finished]:
    """Number to trial of every whole line; lines that are damaged are counted in one sentence.

    Args:
        path: need not exist.
    """
    if not path.exists():
        return {}
    lines = path.read_bytes().splitlines()
    found = [trial for trial in map(_parsed, lines) if trial is not None]
    if len(found) < len(lines):
        say(
            f"search: {path}: {len(lines) - len(found)} of {len(lines)} lines can't be read, as "
            "after a kill or on a damaged disk; their trials are run again."
        )
    return {trial.number: trial for trial in found}


def write_journal(path: Path, trials: Iterable[Finished]) -> None:
    """Write all trials atomically."""
    rows = [asdict(trial) for trial in trials]
    lines = [json.dumps(row | {DIGEST: files.digest(row)}) + "\n" for row in rows]
    files.write_text(path, "".join(lines))


def _parsed(line: bytes) -> Finished | None:
    """The trial of a line; None where the line is not what was written."""
    try:
        row = json.loads(line)
        written = row.pop(DIGEST)
        return Finished(**row) if files.digest(row) == written else None
    except (ValueError, TypeError, KeyError, AttributeError):
        return None

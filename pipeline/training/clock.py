"""A training's speed and the time that is left."""

import math
import time

from pipeline.core.console import duration, say
from pipeline.training.batches import Step
from pipeline.training.history import History


class Clock:
    """Times of a training: checkpoints, slices a second, what is left. No number depends on it."""

    FIRST = 3  # steps before the estimate; the very first ones are slower

    def __init__(self, checkpoint_minutes: float) -> None:
        self._pause = 60 * checkpoint_minutes
        self._saved = self._looked = time.monotonic()
        self._timed = 0.0
        self._steps = 0
        self._speed = math.nan
        self._told = False

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self._saved >= self._pause

    def saved(self) -> None:
        """A checkpoint was written."""
        self._saved = time.monotonic()

    def note(self, done: list[Step]) -> None:
        """Some more steps are done; what comes before `go_on` isn't counted as theirs."""
        seconds = time.monotonic() - self._looked
        self._timed += seconds
        self._steps += len(done)
        self._speed = sum(len(step.indices) for step in done) / seconds

    def go_on(self) -> None:
        """The next steps begin."""
        self._looked = time.monotonic()

    def notes(self, history: History, rate: float, done: list[Step]) -> list[str]:
        """What the progress display says after these steps, the most important first."""
        notes = [f"epoch {done[-1].epoch}", f"loss {history.loss:.4f}"]
        dice = history.last_dice()
        if dice is not None:
            notes.append(f"Dice {dice:.3f}")
        return [*notes, f"{self._speed:.1f} slices/s", f"lr {rate:.2e}"]

    def estimate(self, title: str, step: int, total: int) -> None:
        """Say once, after the first steps, how long all of them take."""
        if not self._told and self._steps >= self.FIRST and step < total:
            left = duration(self._timed / self._steps * (total - step))
            say(f"{title}: about {left} for the {total - step:,} steps that are left")
            self._told = True

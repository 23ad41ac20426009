"""Times of a training: its speed, the time that is left, and when to write a checkpoint."""

import math
import time

from pipeline.core.console import duration, say
from pipeline.training.batches import Step
from pipeline.training.history import History


class Clock:
    """Measures a training; nothing that is learned depends on it.

    Args:
        checkpoint_minutes: time between two checkpoints.
    """

    FIRST = 3  # steps before the estimate, since the first ones are slow

    def __init__(self, checkpoint_minutes: float) -> None:
        self._interval = 60 * checkpoint_minutes  # seconds
        self._saved = self._started = time.monotonic()
        self._seconds = 0.0  # of all steps measured
        self._steps = 0
        self._speed = math.nan  # slices per second
        self._estimated = False

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self._saved >= self._interval

    def saved(self) -> None:
        """Note that a checkpoint was written."""
        self._saved = time.monotonic()

    def stop(self, done: list[Step]) -> None:
        """Count the time since `start` as that of these steps."""
        seconds = time.monotonic() - self._started
        self._seconds += seconds
        self._steps += len(done)
        self._speed = sum(len(step.indices) for step in done) / seconds

    def start(self) -> None:
        """Begin to measure the next steps; validations and checkpoints before are not counted."""
        self._started = time.monotonic()

    def notes(self, history: History, rate: float, done: list[Step]) -> list[str]:
        """Texts beside the progress bar after these steps, the most important first."""
        notes = [f"epoch {done[-1].epoch}", f"loss {history.loss:.4f}"]
        dice = history.last_dice()
        if dice is not None:
            notes.append(f"Dice {dice:.3f}")
        return [*notes, f"{self._speed:.1f} slices/s", f"lr {rate:.2e}"]

    def estimate(self, title: str, step: int, total: int) -> None:
        """After the first steps, print once how long the remaining ones will take."""
        if not self._estimated and self._steps >= self.FIRST and step < total:
            left = duration(self._seconds / self._steps * (total - step))
            say(f"{title}: about {left} for the {total - step:,} steps that are left")
            self._estimated = True

"""Times of a training: its speed, the time that is left, and when to write a checkpoint."""

import math
import time
from collections.abc import Sequence

from pipeline.core.console import LINE_SECONDS, Left
from pipeline.training.batches import Step


class Clock:
    """Measures a training; nothing that is learned depends on it.

    Args:
        checkpoint_minutes: time between two checkpoints.

    Attributes:
        steps: those measured.
        speed: slices per second, between the last two calls of `start` and `stop`.
    """

    def __init__(self, checkpoint_minutes: float) -> None:
        self._interval = 60 * checkpoint_minutes  # seconds
        self._saved = self._started = self._stopped = time.monotonic()
        self._seconds = 0.0  # of all steps measured
        self.steps = 0
        self.speed = math.nan
        self._validations, self._validating = 0, 0.0  # those measured, and their seconds

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self._saved >= self._interval

    def saved(self) -> None:
        """Note that a checkpoint was written."""
        self._saved = time.monotonic()

    def stop(self, done: Sequence[Step]) -> None:
        """Count the time since `start` as that of these steps."""
        self._stopped = time.monotonic()
        seconds = self._stopped - self._started
        self._seconds += seconds
        self.steps += len(done)
        self.speed = sum(len(step.indices) for step in done) / seconds

    def start(self) -> None:
        """Begin to measure the next steps; validations and checkpoints before are not counted."""
        self._started = time.monotonic()

    def validated(self) -> None:
        """Count the time since `stop` as that of a validation."""
        self._validating += time.monotonic() - self._stopped
        self._validations += 1

    def validates_long(self) -> bool:
        """Whether a validation takes as long as the lines of a log file are apart, or may do so."""
        return not self._validations or self._validating / self._validations > LINE_SECONDS

    def left(self, steps: int, validations: int) -> Left:
        """The time that so many steps and validations will take, by the mean of those before."""
        seconds = self._seconds / self.steps * steps
        if self._validations:
            return Left(seconds + self._validating / self._validations * validations)
        return Left(seconds, _validations(validations) if validations else "")


def _validations(number: int) -> str:
    return f"{number} validation{'s' * (number != 1)}"

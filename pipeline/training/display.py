"""What one sees of a training while it runs: a bar with the time left, logs, a picture."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from pipeline.core.console import LINE_SECONDS, Left, duration, say, steps
from pipeline.core.params.blocks import Train
from pipeline.training import tensorboard_log
from pipeline.training.batches import Step
from pipeline.training.clock import Clock
from pipeline.training.history import History, LiveLog
from pipeline.training.progress_picture import NAME, ProgressPicture

LOG = "dvclive"
ESTIMATED_FROM = 3  # steps, since the first ones are slow


class Display:
    """Shows a training; nothing that is learned depends on it.

    Used as a context, in which the bar is there.

    Args:
        title: of the bar.
        history: of the training; what is added to it is shown by the next call.
        clock: measures the training.
        total, begun: steps in all, and those that earlier calls did.
        validated: after how many epochs each validation is.
        folder: for logs and picture; None: neither, nor an estimate.
        settings: the `train` block.
        shown: whether there is anything to see of this device.
    """

    def __init__(
        self,
        title: str,
        history: History,
        clock: Clock,
        total: int,
        begun: int,
        validated: Sequence[int],
        folder: Path | None,
        settings: Train,
        *,
        shown: bool,
    ) -> None:
        self._title, self._history, self._clock = title, history, clock
        self._total, self._begun, self._done = total, begun, begun
        self._epoch, self._rate = 0, 0.0
        self._validated, self._validations = validated, len(validated)
        self._shown = shown
        self._estimates = shown and folder is not None
        self._context = steps(title, total, begun, LINE_SECONDS, shown=shown)
        self._logs: list[LiveLog | tensorboard_log.TensorBoardLog] = []
        self._picture = None
        if folder is not None and shown:
            # whoever watches, what is published is the same
            self._logs.append(LiveLog(folder / LOG, settings.model_dump(exclude={"tensorboard"})))
            if settings.tensorboard:
                self._logs.append(tensorboard_log.TensorBoardLog(folder / tensorboard_log.FOLDER))
            self._picture = ProgressPicture(folder)

    def __enter__(self) -> Self:
        if self._begun and self._shown:
            say(f"{self._title}: goes on after step {self._begun:,} of {self._total:,}")
        self._bar = self._context.__enter__()
        self._clock.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._context.__exit__(*error)

    def advance(self, done: Sequence[Step], rate: float) -> None:
        """These steps are done, the last one with this learning rate."""
        self._clock.stop(done)
        self._done += len(done)
        self._epoch, self._rate = done[-1].epoch, rate
        self._validations = sum(epoch > self._epoch for epoch in self._validated)
        self._bar.advance(*self._notes(), count=len(done), left=self._left())

    @contextmanager
    def validation(self) -> Iterator[None]:
        """For the time of a validation."""
        notes, long = (f"epoch {self._epoch}", "validation"), self._clock.validates_long()
        self._bar.advance(*notes, count=0, left=self._left(), always=long)
        yield
        self._clock.validated()
        self._validations -= 1
        self._bar.advance(*self._notes(), count=0, left=self._left())

    def log(self) -> None:
        """Write what is new in the history."""
        for log in self._logs:
            log.update(self._history)
        if self._picture is not None:
            self._picture.update(self._history)

    def estimate(self) -> None:
        """After the first steps, print once how long what is left will take."""
        steps_left = self._total - self._done
        if self._estimates and self._clock.steps >= ESTIMATED_FROM and steps_left:
            left = self._clock.left(steps_left, self._validations)
            what = f"the {steps_left:,} steps that are left"
            more = f", and {left.without}" if left.without else ""
            say(f"{self._title}: about {duration(left.seconds)} for {what}{more}")
            self._estimates = False

    def end(self) -> None:
        """Complete the logs and the picture."""
        for log in self._logs:
            log.update(self._history)
            log.end()
        if self._picture is not None:
            self._picture.update(self._history, last=True)

    def _left(self) -> Left:
        return self._clock.left(self._total - self._done, self._validations)

    def _notes(self) -> list[str]:
        """Texts beside the bar, the most important first."""
        notes = [f"epoch {self._epoch}", f"loss {self._history.loss:.4f}"]
        dice = self._history.last_dice()
        if dice is not None:
            notes.append(f"Dice {dice:.3f}")
        return [*notes, f"{self._clock.speed:.1f} slices/s", f"lr {self._rate:.2e}"]


def watched(folder: Path, settings: Train) -> dict[str, str]:
    """Where a training can be watched, for the table of settings."""
    rows = {"picture": f"{folder / NAME}, drawn as it goes"}
    if settings.tensorboard:
        rows["to watch"] = f"tensorboard --logdir {folder / tensorboard_log.FOLDER}"
    return rows

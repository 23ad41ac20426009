"""`progress.png` in the run folder: the course of a training so far, while it runs."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.training.history import History, Row

NAME = "progress.png"
SECONDS = 30.0  # between two drawings, each of which takes a few tenths of a second
# a panel: title, and column of the history to label
PANELS = (
    ("loss", {"train_loss": "total", "train_loss_coarse": "coarse", "train_loss_fine": "fine"}),
    ("validation Dice", {"validation_dice": "mean"}),
    ("learning rate", {"learning_rate": ""}),
    ("λ, weight of the coarse stage's loss", {"lambda": ""}),
)


class ProgressPicture:
    """Draws the history into a folder, at most every `SECONDS`, and once at the end.

    Args:
        folder: for the picture.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._drawn, self._epochs = -SECONDS, 0

    def update(self, history: History, *, last: bool = False) -> None:
        """Draw what is new, if it is time to or the training has ended."""
        due = last or time.monotonic() - self._drawn >= SECONDS
        if due and len(history.epochs) > self._epochs:
            with files.atomic_path(self.path) as path:
                draw(history, path)
            self._drawn, self._epochs = time.monotonic(), len(history.epochs)


def draw(history: History, path: Path) -> None:
    """Write the panels that have something to show as PNG."""
    # here, since the import takes half a second and trials don't need it
    from matplotlib.figure import Figure

    rows = history.epochs
    organs = sorted({item["organ"] for item in history.validations})
    shown = [panel for panel in PANELS if any(_points(rows, column)[0] for column in panel[1])]
    figure = Figure((7, 2.2 * len(shown) + 0.4), layout="constrained")
    for axes, (title, columns) in zip(
        figure.subplots(len(shown), sharex=True, squeeze=False)[:, 0], shown, strict=True
    ):
        if title == "validation Dice":
            for organ in organs:
                found = [item for item in history.validations if item["organ"] == organ]
                points = _points(found, "dice")
                axes.plot(*points, linewidth=0.9, alpha=0.6, label=organ)
        for column, label in columns.items():
            points = _points(rows, column)
            marker = "o" if len(points[0]) == 1 else None
            if points[0]:
                axes.plot(*points, linewidth=1.8, marker=marker, label=label)
        axes.set_title(title, fontsize=9, loc="left")
        axes.grid(alpha=0.3)
        if len(axes.lines) > 1:
            axes.legend(fontsize=7, ncols=3)
    axes.set_xlabel("epoch")
    figure.savefig(path, dpi=110, format="png")


def _points(rows: Sequence[Row], column: str) -> tuple[list[int], list[Any]]:
    """Epochs and values where there are any."""
    known = [row for row in rows if row[column] is not None]
    return [row["epoch"] for row in known], [row[column] for row in known]

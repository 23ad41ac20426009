"""`tensorboard/` in the run folder: the course of a training for TensorBoard, while it runs."""

import shutil
from pathlib import Path

from pipeline.training.history import History, scalars

FOLDER = "tensorboard"


class TensorBoardLog:
    """Writes what dvclive is told, under the same names, as TensorBoard's event files.

    A resumed training begins the files anew, so that no epoch is in them twice.

    Args:
        folder: for the files; what is there goes.
    """

    def __init__(self, folder: Path) -> None:
        # here, since the extra isn't always installed
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder))
        self._written = 0

    def update(self, history: History) -> None:
        """Write the epochs that were added since the last call."""
        for row in history.epochs[self._written :]:
            for name, value in scalars(history, row):
                self._writer.add_scalar(name, value, row["epoch"])
        self._written = len(history.epochs)
        self._writer.flush()

    def end(self) -> None:
        """Close the files."""
        self._writer.close()

"""What a training tells: losses of every step, a row an epoch, validations organ by organ."""

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.training.batches import Step

EPOCH_COLUMNS = (
    "epoch",
    "iteration",
    "learning_rate",
    "lambda",
    "train_loss",
    "train_loss_coarse",
    "train_loss_fine",
    "validation_dice",
)
VALIDATION_COLUMNS = ("epoch", "organ", "dice")

Row = dict[str, Any]


@dataclass
class History:
    """What is known of a training so far; plain values, so that a checkpoint can hold it.

    Attributes:
        epochs: a row of EPOCH_COLUMNS for each finished epoch; None where nothing was measured.
        validations: a row of VALIDATION_COLUMNS for each validation and organ.
        sums: losses of the running epoch, each times its slices, then its slices.
        loss: of the last step that was looked at.
    """

    epochs: list[Row] = field(default_factory=list)
    validations: list[Row] = field(default_factory=list)
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    loss: float = math.nan

    def add(self, step: Step, losses: Sequence[float], rate: float, weight: float) -> None:
        """Count a step's losses in; the last one of an epoch makes its row.

        Args:
            step: what was trained on.
            losses: total, coarse and fine stage; NaN for a stage that the model doesn't have.
            rate, weight: learning rate and lambda of the step.
        """
        self.loss, count = losses[0], len(step.indices)
        values = [*(loss * count for loss in losses), count]
        self.sums = [a + b for a, b in zip(self.sums, values, strict=True)]
        if not step.ends_epoch:
            return
        means = [None if math.isnan(part) else part / self.sums[-1] for part in self.sums[:-1]]
        row = (step.epoch, step.iteration + 1, rate, weight, *means, None)
        self.epochs.append(dict(zip(EPOCH_COLUMNS, row, strict=True)))
        self.sums = [0.0] * 4

    def last_dice(self) -> float | None:
        """Mean validation Dice over the organs, of the last validation; None before the first."""
        for row in reversed(self.epochs):
            if row["validation_dice"] is not None:
                return float(row["validation_dice"])
        return None

    def add_validation(self, dice: Mapping[str, float]) -> float:
        """Count the validation of the last epoch in; gives its mean over the organs."""
        mean = math.fsum(dice.values()) / len(dice) if dice else 0.0
        row = self.epochs[-1]
        row["validation_dice"] = mean
        self.validations += [
            {"epoch": row["epoch"], "organ": organ, "dice": value} for organ, value in dice.items()
        ]
        return mean


@dataclass
class Pending:
    """Losses of steps that still are on the device, so that reading them waits for it but once."""

    steps: list[tuple[Step, float, float]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)

    def add(self, step: Step, losses: Tensor, rate: float, weight: float) -> None:
        """Keep a step's losses, (passes, 3), with its learning rate and lambda."""
        shares = torch.tensor([part.share for part in step.passes])
        shares = shares.to(losses.device, non_blocking=True)
        self.steps.append((step, rate, weight))
        self.losses.append((losses * shares[:, None]).sum(0))

    def read(self) -> list[tuple[Step, list[float], float, float]]:
        """Step, its three losses, learning rate and lambda of each, waiting for the device."""
        if not self.steps:
            return []
        values = torch.stack(self.losses).tolist()
        found = [(step, v, *rest) for (step, *rest), v in zip(self.steps, values, strict=True)]
        self.steps, self.losses = [], []
        return found


def table(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


class LiveLog:
    """The history in dvclive's files: metrics, plots and parameters.

    The files are begun anew when a training goes on, so that no epoch is in them twice.
    """

    def __init__(self, folder: Path, params: Mapping[str, Any]) -> None:
        from dvclive import Live  # takes a second, and only trainings of their own need it

        self._live = Live(dir=str(folder), save_dvc_exp=False, dvcyaml=None, report=None)
        self._live.log_params(dict(params))
        self._written = 0

    def update(self, history: History) -> None:
        """Write the epochs that are new since the last call."""
        for row in history.epochs[self._written :]:
            self._live.step = row["epoch"]
            for column in EPOCH_COLUMNS[2:]:
                if row[column] is not None:
                    self._live.log_metric(column, row[column])
            for item in history.validations:
                if item["epoch"] == row["epoch"]:
                    # dvclive makes a path of the name
                    name = re.sub(r"[^\w -]", "_", item["organ"])
                    self._live.log_metric(f"validation/{name}", item["dice"])
            self._live.make_summary()
        self._written = len(history.epochs)

    def end(self) -> None:
        """Close the files."""
        self._live.end()

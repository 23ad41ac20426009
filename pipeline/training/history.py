"""The course of a training: losses, one row per epoch, validation scores, and dvclive's files."""

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """Losses and validations so far, as plain values that a checkpoint can hold.

    Attributes:
        epochs: one row of EPOCH_COLUMNS per finished epoch; None where nothing was measured, and
            lambda None for a model of one stage.
        validations: one row of VALIDATION_COLUMNS per validation and organ.
        sums: over the running epoch, total, coarse and fine loss times slices, and slices.
        loss: total loss of the last step that was added.
    """

    epochs: list[Row] = field(default_factory=list)
    validations: list[Row] = field(default_factory=list)
    sums: list[float] = field(default_factory=lambda: [0.0] * 4)
    loss: float = math.nan

    def add(self, step: Step, losses: Sequence[float], rate: float, weight: float) -> None:
        """Add the losses of a step; the last step of an epoch completes its row.

        Args:
            step: the step.
            losses: total, coarse and fine stage; NaN for a stage that the model lacks.
            rate, weight: learning rate, and lambda, the weight of the coarse stage.
        """
        self.loss, count = losses[0], len(step.indices)
        values = [*(loss * count for loss in losses), count]
        self.sums = [a + b for a, b in zip(self.sums, values, strict=True)]
        if not step.ends_epoch:
            return
        means = [None if math.isnan(part) else part / self.sums[-1] for part in self.sums[:-1]]
        # nothing is weighed where there is one stage
        weighed = None if None in means else weight
        row = (step.epoch, step.iteration + 1, rate, weighed, *means, None)
        self.epochs.append(dict(zip(EPOCH_COLUMNS, row, strict=True)))
        self.sums = [0.0] * 4

    def last_dice(self) -> float | None:
        """Mean validation Dice over the organs, of the last validation; None before the first."""
        for row in reversed(self.epochs):
            if row["validation_dice"] is not None:
                return float(row["validation_dice"])
        return None

    def add_validation(self, dice: Mapping[str, float]) -> float:
        """Add the Dice of each organ after the last epoch; returns their mean."""
        mean = mean_dice(dice)
        row = self.epochs[-1]
        row["validation_dice"] = mean
        self.validations += [
            {"epoch": row["epoch"], "organ": organ, "dice": value} for organ, value in dice.items()
        ]
        return mean


def mean_dice(dice: Mapping[str, float]) -> float:
    """Mean of the organs' Dice; 0 where the validation cases show none."""
    return math.fsum(dice.values()) / len(dice) if dice else 0.0


@dataclass
class Pending:
    """Losses of steps that are still on the device, so that many are read in one transfer.

    Attributes:
        steps: step, learning rate and lambda of each.
        losses: (3,) of each: total, coarse and fine stage.
    """

    steps: list[tuple[Step, float, float]] = field(default_factory=list)
    losses: list[Tensor] = field(default_factory=list)

    def add(self, step: Step, losses: Tensor, rate: float, weight: float) -> None:
        """Add a step with the losses of its passes, (passes, 3), its learning rate and lambda."""
        shares = torch.tensor([part.share for part in step.passes])
        shares = shares.to(losses.device, non_blocking=True)
        self.steps.append((step, rate, weight))
        self.losses.append((losses * shares[:, None]).sum(0))

    def read(self) -> list[tuple[Step, list[float], float, float]]:
        """Take out all steps: each with its three losses, learning rate and lambda."""
        if not self.steps:
            return []
        values = torch.stack(self.losses).tolist()
        steps = [
            (step, losses, rate, weight)
            for (step, rate, weight), losses in zip(self.steps, values, strict=True)
        ]
        self.steps, self.losses = [], []
        return steps


def table(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """The rows as CSV text with a header; None is an empty field."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def scalars(history: History, row: Row) -> Iterator[tuple[str, float]]:
    """Name and value of what was measured in an epoch, the Dice of each organ included."""
    for column in EPOCH_COLUMNS[2:]:
        if row[column] is not None:
            yield column, row[column]
    for item in history.validations:
        if item["epoch"] == row["epoch"]:
            # dvclive turns the name into a path
            name = re.sub(r"[^\w -]", "_", item["organ"])
            yield f"validation/{name}", item["dice"]


class LiveLog:
    """Writes the history as dvclive's files, for `dvc plots` and DVC Studio.

    A resumed training begins the files anew, so that no epoch is in them twice.

    Args:
        folder: for the files.
        params: parameters to write beside them.
    """

    def __init__(self, folder: Path, params: Mapping[str, Any]) -> None:
        from dvclive import Live  # here, since the import takes a second and trials don't need it

        self._live = Live(dir=str(folder), save_dvc_exp=False, dvcyaml=None, report=None)
        self._live.log_params(dict(params))
        self._written = 0

    def update(self, history: History) -> None:
        """Write the epochs that were added since the last call."""
        for row in history.epochs[self._written :]:
            self._live.step = row["epoch"]
            for name, value in scalars(history, row):
                self._live.log_metric(name, value)
            self._live.make_summary()
        self._written = len(history.epochs)

    def end(self) -> None:
        """Close the files."""
        self._live.end()

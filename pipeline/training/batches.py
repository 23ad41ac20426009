"""Which slices each step of a training takes: a pure function of parameters and seed.

An epoch's order is cut into batches of `batch_size`, one for each optimizer step. A batch too large
for a single forward pass is cut into passes of nearly equal size (gradient accumulation), and each
pass is divided among the devices. So order, steps and schedules are the same for any number of
devices and any size of a pass.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.training.sampling import epoch_order


@dataclass(frozen=True)
class Pass:
    """The slices of one device in one forward pass.

    Attributes:
        indices: (b,) dataset indices, b at least 1.
        places: (b,) positions of these slices in the epoch's order.
        count: how many of them enter the loss; 0 on a device without a slice of its own, which
            computes the first slice of the pass only to stay in step with the others.
        share: slices of the pass on all devices, divided by those of the step.
        seed: of the model's noise and dropout, different on each device.
    """

    indices: Tensor
    places: Tensor
    count: int
    share: float
    seed: int


@dataclass(frozen=True)
class Step:
    """One optimizer step.

    Attributes:
        iteration: number of the step in the whole training, from 0.
        epoch: number of the epoch, from 0.
        ends_epoch: whether the step is the last one of its epoch.
        indices: dataset indices of the batch, on all devices.
        passes: the passes of this device.
    """

    iteration: int
    epoch: int
    ends_epoch: bool
    indices: Tensor
    passes: tuple[Pass, ...]


@dataclass(frozen=True)
class Batches:
    """All steps of a training.

    Attributes:
        slices: number of slices in the training set.
        epochs: number of epochs.
        batch_size: slices per step.
        micro_batch: largest number of slices per pass and device.
        seed: of the training, `Params.seed_of("train")`.
        devices: number of devices that divide a pass.
        rank: number of this device, from 0.
        weights: (slices,) for `epoch_order`; None: every slice once per epoch.
    """

    slices: int
    epochs: int
    batch_size: int
    micro_batch: int
    seed: int
    devices: int = 1
    rank: int = 0
    weights: NDArray[np.float64] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps per epoch, the last of which may have a smaller batch."""
        return -(-self.slices // self.batch_size)

    @property
    def total_steps(self) -> int:
        """Steps of all epochs."""
        return self.epochs * self.steps_per_epoch

    @property
    def passes_per_step(self) -> int:
        """Passes of a full batch."""
        return -(-min(self.batch_size, self.slices) // (self.micro_batch * self.devices))

    def steps(self, start: int = 0) -> Iterator[Step]:
        """The steps from iteration `start` on."""
        for epoch in range(start // self.steps_per_epoch, self.epochs):
            order = epoch_order(self.slices, self.seed, epoch, self.weights)
            first = epoch * self.steps_per_epoch
            for number in range(max(0, start - first), self.steps_per_epoch):
                begin = number * self.batch_size
                batch = order[begin : begin + self.batch_size]
                yield Step(
                    first + number,
                    epoch,
                    number + 1 == self.steps_per_epoch,
                    batch,
                    tuple(self._passes(first + number, begin, batch)),
                )

    def _passes(self, iteration: int, begin: int, batch: Tensor) -> Iterator[Pass]:
        """The passes of a batch that begins at place `begin` of the epoch's order."""
        places = torch.arange(begin, begin + len(batch))
        number = -(-len(batch) // (self.micro_batch * self.devices))
        for index, part in enumerate(torch.arange(len(batch)).tensor_split(number)):
            mine = part.tensor_split(self.devices)[self.rank]
            taken = mine if len(mine) else part[:1]
            yield Pass(
                batch[taken],
                places[taken],
                len(mine),
                len(part) / len(batch),
                _seed(self.seed, iteration, index, self.rank),
            )


def _seed(*numbers: int) -> int:
    """A seed below 2^63 from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))

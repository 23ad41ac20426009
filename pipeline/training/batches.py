"""Which slices every step of a training takes: a pure function of parameters and seed.

An epoch's order is cut into effective batches of `batch_size`. A batch that one forward pass of all
devices doesn't hold is cut into passes of nearly equal size, each shared out to the devices. So
steps, schedules and order are the same for any number of devices and any size of a pass.
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
    """What one device takes in one forward pass.

    Attributes:
        indices: of the dataset, this device's share, (b,) with b from 1.
        places: of these slices in the epoch's order, (b,).
        count: how many of them count; 0 where there are fewer slices than devices, so that the
            first one is lent to this device.
        share: the pass's slices on all devices as a share of the step's.
        seed: of the noise and dropout that the model draws, another one on each device.
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
        iteration: its number in the whole training, from 0.
        epoch: from 0.
        ends_epoch: whether it is the last one of its epoch.
        indices: of the dataset, on all devices.
        passes: this device's.
    """

    iteration: int
    epoch: int
    ends_epoch: bool
    indices: Tensor
    passes: tuple[Pass, ...]


@dataclass(frozen=True)
class Batches:
    """The steps of a training.

    Attributes:
        slices: in the training set.
        epochs: of the training.
        batch_size: slices a step.
        micro_batch: largest number of slices per device and pass.
        seed: `base.seed`.
        devices: how many share a pass.
        rank: which of them this is.
        weights: of each slice, for `epoch_order`; None: every slice once an epoch.
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
        """The last one may be smaller."""
        return -(-self.slices // self.batch_size)

    @property
    def total_steps(self) -> int:
        """Of all epochs."""
        return self.epochs * self.steps_per_epoch

    @property
    def passes_per_step(self) -> int:
        """Of a full batch."""
        return -(-min(self.batch_size, self.slices) // (self.micro_batch * self.devices))

    def steps(self, start: int = 0) -> Iterator[Step]:
        """The steps from number `start` on."""
        for epoch in range(start // self.steps_per_epoch, self.epochs):
            order = epoch_order(self.slices, self.seed, epoch, self.weights)
            first = epoch * self.steps_per_epoch
            for number in range(max(0, start - first), self.steps_per_epoch):
                low = number * self.batch_size
                chosen = order[low : low + self.batch_size]
                yield Step(
                    first + number,
                    epoch,
                    number + 1 == self.steps_per_epoch,
                    chosen,
                    tuple(self._passes(first + number, low, chosen)),
                )

    def _passes(self, iteration: int, low: int, chosen: Tensor) -> Iterator[Pass]:
        places = torch.arange(low, low + len(chosen))
        number = -(-len(chosen) // (self.micro_batch * self.devices))
        for index, part in enumerate(torch.arange(len(chosen)).tensor_split(number)):
            mine = part.tensor_split(self.devices)[self.rank]
            taken = mine if len(mine) else part[:1]
            yield Pass(
                chosen[taken],
                places[taken],
                len(mine),
                len(part) / len(chosen),
                _seed(self.seed, iteration, index, self.rank),
            )


def _seed(*numbers: int) -> int:
    """One number below 2^63 from several."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))

"""An exponential moving average of the trained weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Follows parameters: average = decay * average + (1 - decay) * parameter, step by step.

    The first steps count more, as the decay of step t is at most (1 + t) / (10 + t).
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        """Start at the parameters' values; `decay` is in (0, 1)."""
        self.parameters = parameters
        self.decay = decay
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the parameters after step number `step`, from 0, into the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters hold their averages inside the block."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def keep(self) -> None:
        """Leave the averages in the parameters, at the end of a training."""
        self._swap()

    def load(self, values: list[Tensor]) -> None:
        """Take over the values of another average of the same parameters."""
        for mine, other in zip(self.values, values, strict=True):
            mine.copy_(other)

    def _swap(self) -> None:
        for index, parameter in enumerate(self.parameters):
            parameter.data, self.values[index] = self.values[index], parameter.data

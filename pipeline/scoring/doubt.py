"""What a prediction says of its own quality, summed over the slices of a volume.

Two signs of each organ, both in [0, 1], 1 for no doubt: the Dice that the probabilities expect, and
the Dice of the two stages' masks.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.disagreement import overlaps

Sums = NDArray[np.float64]


@dataclass(frozen=True)
class Signs:
    """Of one organ that was predicted.

    Attributes:
        expected: 2 sum(p m) / (sum p + sum m), the Dice of the mask m with the probabilities p.
        agreement: Dice of the two stages' masks; None for a model of one stage.
    """

    expected: float
    agreement: float | None


class Doubt:
    """Sums over the slices of one volume, a batch at a time.

    Args:
        organs: how many; label k is the k-th organ.
    """

    def __init__(self, organs: int) -> None:
        self.organs = organs
        self._size, self._mass, self._inside = (np.zeros(organs) for _ in range(3))
        self._stages: tuple[Sums, Sums] | None = None

    def add(
        self,
        labels: NDArray[np.integer],
        probabilities: NDArray[np.integer],
        steps: int,
        stages: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None,
    ) -> None:
        """Add slices.

        Args:
            labels: chosen classes (slices, rows, columns).
            probabilities: of each class, background first, (classes, slices, rows, columns), in
                steps of 1 / `steps`.
            steps: see there.
            stages: labels of the coarse and of the fine stage; None: a model of one.
        """
        for organ, shares in enumerate(probabilities[1 : self.organs + 1]):
            inside = labels == organ + 1
            self._size[organ] += np.count_nonzero(inside)
            self._mass[organ] += int(shares.sum(dtype=np.int64)) / steps
            self._inside[organ] += int(shares[inside].sum(dtype=np.int64)) / steps
        if stages is not None:
            sizes, shared = overlaps(*stages, self.organs)
            before = self._stages or (np.zeros(self.organs), np.zeros(self.organs))
            self._stages = (before[0] + sizes, before[1] + shared)

    def signs(self) -> list[Signs | None]:
        """Of each organ; None for one that has no voxel in the labels."""
        return [self._signs(organ) for organ in range(self.organs)]

    def _signs(self, organ: int) -> Signs | None:
        if not self._size[organ]:
            return None
        whole = self._size[organ] + self._mass[organ]
        expected = float(2 * self._inside[organ] / whole)
        if self._stages is None:
            return Signs(expected, None)
        sizes, shared = (part[organ] for part in self._stages)
        # a mean of two stages may name an organ where neither does: they don't agree on it
        return Signs(expected, float(2 * shared / sizes) if sizes else 0.0)

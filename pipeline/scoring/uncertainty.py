"""How unsure a prediction is, told from the prediction alone; docs/evaluation.md has the table.

A model gives two signs, both from the pass that gives the labels: the probabilities, and, of two
stages, their masks. Expected Dice and agreement are of an organ in a volume (`Signs`), the expected
error is of an organ on a slice (`ExpectedError`). What they are good for stands elsewhere: the
order of the review list (`review`), a predicted Dice (`predicted_dice`).

Faint doubt counts as none: after a short training, of a U-Net above all, every pixel far from any
organ has some, and its sum over a picture drowns that of the places where labels are wrong.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TWO_STAGES = ("coarse", "fine")  # of a model whose stages can disagree
FAINT = 0.1  # a probability below it is taken as 0, one above 1 - FAINT as 1
WINDOW_MM = 10.0  # side of the square that the place of a slice's doubt is the middle of

Sums = NDArray[np.float64]


@dataclass(frozen=True)
class Signs:
    """Of one organ that was predicted.

    Attributes:
        expected: 2 sum(p m) / (sum p + sum m), the Dice of the mask m with the probabilities p,
            faint doubt aside.
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
                steps of 1 / `steps`, as `clear` gives them.
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


@dataclass(frozen=True, eq=False)
class ExpectedError:
    """Of each organ on each slice of a volume; filled a batch at a time.

    A pixel inside the organ's mask counts 1 - p, one outside counts p. That is the mean number of
    wrong pixels if the probabilities are right, those that are hardly in doubt left out. A sum
    below one pixel counts as none.

    Attributes:
        mm2: expected area of the pixels that are wrong, (slices, organs).
        places: row and column of the middle of the doubt, -1 where there is none,
            (slices, organs, 2).
        pixel_mm: height and width of a pixel.
    """

    mm2: NDArray[np.float64]
    places: NDArray[np.int64]
    pixel_mm: tuple[float, float]

    @classmethod
    def of(cls, slices: int, organs: int, pixel_mm: tuple[float, float]) -> "ExpectedError":
        """That of a volume of which no slice was added."""
        return cls(np.zeros((slices, organs)), np.full((slices, organs, 2), -1), pixel_mm)

    def add(
        self,
        first: int,
        labels: NDArray[np.integer],
        probabilities: NDArray[np.uint8],
        steps: int,
    ) -> None:
        """Fill in some slices.

        Args:
            first: index of the first one.
            labels: chosen classes (B, rows, columns); label k is the k-th organ.
            probabilities: of each class, background first, (classes, B, rows, columns), in steps
                of 1 / `steps`, as `clear` gives them.
            steps: see there.
        """
        height, width = self.pixel_mm
        window = (max(1, round(WINDOW_MM / height)), max(1, round(WINDOW_MM / width)))
        for organ, shares in enumerate(probabilities[1:]):
            for index, (chosen, share) in enumerate(zip(labels, shares, strict=True), first):
                wrong = np.where(chosen == organ + 1, steps - share, share)
                total = int(wrong.sum(dtype=np.int64))
                if total >= steps:
                    self.mm2[index, organ] = total / steps * height * width
                    self.places[index, organ] = densest(wrong, window)


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """All of it of one volume; filled a batch at a time.

    Attributes:
        doubt: of each organ.
        expected: of each organ on each slice.
    """

    doubt: Doubt
    expected: ExpectedError

    @classmethod
    def of(cls, slices: int, organs: int, pixel_mm: tuple[float, float]) -> "Uncertainty":
        """That of a volume of which no slice was added."""
        return cls(Doubt(organs), ExpectedError.of(slices, organs, pixel_mm))

    def add(
        self,
        first: int,
        labels: Mapping[str, NDArray[np.uint8]],
        stage: str,
        probabilities: NDArray[np.uint8],
        steps: int,
    ) -> None:
        """Add some slices.

        Args:
            first: index of the first one.
            labels: stage to labels (B, rows, columns).
            stage: whose labels are in doubt.
            probabilities: its, of each class, background first, (classes, B, rows, columns), in
                steps of 1 / `steps`.
            steps: see there.
        """
        two = (labels["coarse"], labels["fine"]) if set(TWO_STAGES) <= set(labels) else None
        cleared = clear(probabilities, steps)
        self.expected.add(first, labels[stage], cleared, steps)
        self.doubt.add(labels[stage], cleared, steps, two)


def clear(probabilities: NDArray[np.uint8], steps: int) -> NDArray[np.uint8]:
    """Probabilities without faint doubt; a copy.

    Args:
        probabilities: of any shape, in steps of 1 / `steps`.
        steps: at most 255.

    Returns:
        Likewise, 0 where they are below FAINT and `steps` where they are above 1 - FAINT.
    """
    values = np.arange(steps + 1, dtype=np.uint8)
    values[: math.ceil(FAINT * steps)] = 0
    values[math.floor((1 - FAINT) * steps) + 1 :] = steps
    return values[probabilities]


def densest(weights: NDArray[np.integer], window: tuple[int, int]) -> tuple[int, int]:
    """The pixel in the middle of the window that holds the largest sum of weights.

    Args:
        weights: (rows, columns), 0 or more, not all 0.
        window: rows and columns of the window.

    Returns:
        Row and column of the centre of mass within the window, the first one among equal windows.
    """
    used = [np.flatnonzero(weights.any(axis=axis)) for axis in (1, 0)]
    top, left = (int(places[0]) for places in used)
    part = weights[top : used[0][-1] + 1, left : used[1][-1] + 1].astype(np.int64)
    height, width = (min(pair) for pair in zip(window, part.shape, strict=True))
    sums = np.pad(part.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    held = sums[height:, width:] - sums[:-height, width:]
    held -= sums[height:, :-width] - sums[:-height, :-width]
    row, column = (int(place) for place in np.unravel_index(held.argmax(), held.shape))
    box = part[row : row + height, column : column + width]
    down = box.sum(axis=1) @ np.arange(height) / box.sum()
    right = box.sum(axis=0) @ np.arange(width) / box.sum()
    return top + row + round(float(down)), left + column + round(float(right))


def overlaps(
    first: NDArray[np.integer], second: NDArray[np.integer], organs: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Mask sizes of each organ in two label arrays.

    Args:
        first, second: labels of one shape.
        organs: how many labels to count, from 1.

    Returns:
        The sum of the two masks' sizes and the size of their intersection, pixels, (organs,) each.
    """
    length = organs + 1
    sizes = [np.bincount(labels.ravel(), minlength=length) for labels in (first, second)]
    shared = np.bincount(first[first == second], minlength=length)
    return (sizes[0] + sizes[1])[1:length], shared[1:length]

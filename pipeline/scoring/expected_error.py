"""Where a prediction is expected to be wrong, by its own probabilities, slice by slice."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW_MM = 10.0  # side of the square that the place of a slice's doubt is the middle of


@dataclass(frozen=True, eq=False)
class ExpectedError:
    """Of each organ on each slice of a volume; filled a batch at a time.

    A pixel inside the organ's mask counts 1 - p, one outside counts p. That is the mean number of
    wrong pixels if the probabilities are right. A sum below one pixel counts as none.

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
                of 1 / `steps`.
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

"""Panels of slices: images with their labels, and the boxes to enlarge."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.colours import organ_colours
from pipeline.reporting.drawing import slice_pixels

DIFFERENCE = "#ff2d2d"  # colour of pixels on which stages differ
DIFFER = "stages differ"  # what it means
MARGIN = 0.6  # of a zoom box around its organ, both sides together, in the organ's larger side
SMALLEST = 0.16  # least side of a zoom box, in the slice's shorter side

Box = tuple[slice, slice]  # rows and columns


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture of a row.

    Attributes:
        image: (rows, columns) in [0, 1].
        labels: (rows, columns), or None for the image alone.
        names, colours: of the labels 1, 2, ...
        pixel_mm: height and width of a pixel.
        frame: a box to draw: left, top, width and height in shares of the picture; None: none.
        note: text below the panel.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint8] | None
    names: Sequence[str]
    colours: Sequence[str]
    pixel_mm: tuple[float, float]
    frame: tuple[float, float, float, float] | None = None
    note: str = ""

    @property
    def aspect(self) -> float:
        """Height of a pixel over its width."""
        return self.pixel_mm[0] / self.pixel_mm[1]

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width of what is shown."""
        rows, columns = self.image.shape
        return rows * self.pixel_mm[0], columns * self.pixel_mm[1]

    @property
    def shown(self) -> dict[str, str]:
        """Name to colour of the labels that it shows."""
        if self.labels is None:
            return {}
        present = np.unique(self.labels[self.labels > 0]).tolist()
        return {self.names[label - 1]: self.colours[label - 1] for label in present}

    def pixels(self, *, filled: bool = True, outlined: bool = True) -> NDArray[np.uint8]:
        """RGB (rows, columns, 3) of the image, its labels tinted and outlined or tinted alone."""
        labels = self.labels if filled else None
        return slice_pixels(self.image, labels, self.colours, outlined=outlined)


@dataclass(frozen=True)
class Row:
    """The panels of one slice, its name at the left, and its case and number where known."""

    name: str
    panels: Sequence[Panel]
    at: tuple[str, int] | None = None


def panel(
    image: NDArray[np.float32],
    labels: NDArray[np.uint8] | None,
    spacing_mm: tuple[float, float, float],
    organs: Sequence[str],
    *,
    box: Box | None = None,
    note: str = "",
) -> Panel:
    """A slice or a part of it.

    Args:
        image: (rows, columns) in [0, 1].
        labels: (rows, columns), or None for the image alone.
        spacing_mm: along slice, row, column.
        organs: names, in the order of the labels.
        box: the part to show; None: the whole slice.
        note: text below the panel.
    """
    if box is not None:
        image, labels = image[box], None if labels is None else labels[box]
    return Panel(image, labels, organs, organ_colours(organs), spacing_mm[1:], note=note)


def framed(whole: Panel, box: Box) -> Panel:
    """A panel with a box drawn on it.

    Args:
        whole: panel of a whole slice.
        box: what to mark, in the slice's pixels.
    """
    shape = whole.image.shape
    top, left = (side.start / size for side, size in zip(box, shape, strict=True))
    height, width = ((side.stop - side.start) / size for side, size in zip(box, shape, strict=True))
    return replace(whole, frame=(left, top, width, height))


def difference_panel(
    image: NDArray[np.float32],
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    note: str = "",
) -> Panel:
    """A slice on which the pixels are marked that have different labels in two label arrays.

    Args:
        image: (rows, columns) in [0, 1].
        first, second: labels (rows, columns).
        spacing_mm: along slice, row, column.
        note: text below the panel.
    """
    differing = (first != second).astype(np.uint8)
    return Panel(image, differing, [DIFFER], [DIFFERENCE], spacing_mm[1:], note=note)


def zoom_box(mask: NDArray[np.bool_], spacing_mm: tuple[float, float, float]) -> Box:
    """A box that is square in mm around a mask, with a margin, inside the slice.

    Args:
        mask: (rows, columns), not empty.
        spacing_mm: along slice, row, column.
    """
    pixel = np.array(spacing_mm[1:])
    places = np.argwhere(mask)
    low, high = places.min(0), places.max(0) + 1
    size = np.array(mask.shape)
    side = (1 + MARGIN) * ((high - low) * pixel).max()
    side = min(max(side, SMALLEST * (size * pixel).min()), (size * pixel).min())
    length = np.clip(np.round(side / pixel).astype(int), 1, size)
    start = np.clip(np.round((low + high - length) / 2).astype(int), 0, size - length)
    rows, columns = (slice(int(a), int(a + n)) for a, n in zip(start, length, strict=True))
    return rows, columns

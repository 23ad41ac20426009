"""Figures of slices: rows of panels, column titles above, slice names at the left, organs below."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from pipeline.imaging.colours import organ_colours
from pipeline.reporting.drawing import slice_pixels
from pipeline.reporting.plots import SOFT, STYLE

PANEL = 1.75  # side of a panel, inches
DIFFERENCE = "#ff2d2d"  # colour of pixels on which stages differ
MARGIN = 0.6  # of a zoom box around its organ, both sides together, in the organ's larger side
SMALLEST = 0.16  # least side of a zoom box, in the slice's shorter side

Box = tuple[slice, slice]  # rows and columns


@dataclass(frozen=True)
class Panel:
    """One picture of a row.

    Attributes:
        pixels: RGB (rows, columns, 3).
        aspect: height of a pixel over its width, in mm.
        frame: a box to draw: left, top, width and height in shares of the picture; None: none.
        note: text below the panel.
    """

    pixels: NDArray[np.uint8]
    aspect: float
    frame: tuple[float, float, float, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Row:
    """The panels of one slice, and its name at the left."""

    name: str
    panels: Sequence[Panel]


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
    pixels = slice_pixels(image, labels, organ_colours(organs))
    return Panel(pixels, spacing_mm[1] / spacing_mm[2], note=note)


def framed(whole: Panel, box: Box, shape: tuple[int, int]) -> Panel:
    """A panel with a box drawn on it.

    Args:
        whole: panel of a whole slice.
        box: what to mark, in the slice's pixels.
        shape: rows and columns of the slice.
    """
    top, left = (side.start / size for side, size in zip(box, shape, strict=True))
    height, width = ((side.stop - side.start) / size for side, size in zip(box, shape, strict=True))
    return Panel(whole.pixels, whole.aspect, (left, top, width, height), whole.note)


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
    pixels = slice_pixels(image, differing, [DIFFERENCE])
    return Panel(pixels, spacing_mm[1] / spacing_mm[2], note=note)


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


def draw(rows: Sequence[Row], titles: Sequence[str], organs: Sequence[str]) -> Figure:
    """Rows of panels.

    Args:
        rows: each with as many panels as there are titles.
        titles: of the columns.
        organs: for the legend, in the order of the labels.
    """
    heights = [_height(row) for row in rows]
    columns = len(titles)
    legend_rows = -(-len(organs) // max(3, columns))
    with matplotlib.rc_context(STYLE):
        figure = Figure(
            (0.4 + (PANEL + 0.05) * columns, sum(heights) + 0.5 + 0.22 * legend_rows),
            layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.04, wspace=0.01, hspace=0.01),
        )
        grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
        for place, row in enumerate(rows):
            for axes, item in zip(grid[place], row.panels, strict=True):
                _draw_panel(axes, item)
            grid[place][0].set_ylabel(row.name, fontsize=8)
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title, fontsize=9)
        patches = [
            Patch(facecolor=colour, label=name)
            for name, colour in zip(organs, organ_colours(organs), strict=True)
        ]
        figure.legend(
            handles=patches,
            loc="outside lower center",
            ncols=max(3, columns),
            fontsize=8,
            handlelength=1,
            handleheight=1,
        )
    return figure


def _height(row: Row) -> float:
    """Height of a row in inches: that of its tallest panel and of a line of notes, if any."""
    sides = [p.pixels.shape[0] * p.aspect / p.pixels.shape[1] for p in row.panels]
    return PANEL * max(sides) + 0.22 * any(p.note for p in row.panels)


def _draw_panel(axes: matplotlib.axes.Axes, item: Panel) -> None:
    axes.imshow(item.pixels, aspect=item.aspect, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if item.note:
        axes.set_xlabel(item.note, fontsize=7, color=SOFT, labelpad=2)
    if item.frame is not None:
        left, top, width, height = item.frame
        corner = (left, 1 - top - height)
        style: dict[str, Any] = {"fill": False, "edgecolor": "white", "lw": 1.2}
        axes.add_patch(Rectangle(corner, width, height, transform=axes.transAxes, **style))

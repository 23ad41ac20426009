"""Figures of slices: rows of panels, column titles above, slice names at the left, organs below."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from pipeline.reporting.look import Look, legend_options
from pipeline.reporting.panels import Panel, Row
from pipeline.reporting.plots import SOFT, style

GAP = 0.03  # between panels, inches
CONTOUR_PT, THINNEST_PT = 0.7, 0.3  # width of contours in panels of an inch or more, and at least
LONGEST_BAR = 0.4  # of a panel's width
INSET = 0.05  # of marks from a panel's edges, in its sides
BACKGROUND: dict[str, Any] = {
    "boxstyle": "square,pad=0.1",
    "facecolor": "black",
    "alpha": 0.5,
    "linewidth": 0,
}


@dataclass(frozen=True)
class _Plan:
    """Where the parts of a figure are, inches.

    Attributes:
        titles, names: of columns and rows, in lines.
        notes: lines of each row's notes.
        left: room for the rows' names.
        panel: width of a panel.
        heights: of the rows' panels.
    """

    titles: Sequence[str]
    names: Sequence[str]
    notes: Sequence[int]
    left: float
    panel: float
    heights: Sequence[float]


def draw(
    rows: Sequence[Row],
    titles: Sequence[str],
    look: Look,
    sides: tuple[str, str],
    subtitles: Sequence[str] = (),
) -> Figure:
    """Rows of panels.

    Args:
        rows: each with as many panels as there are titles.
        titles: of the columns.
        look: width, font size, style and marks.
        sides: letters for the left and the right edge of a panel.
        subtitles: one for each title; empty: none.
    """
    plan = _plan(rows, titles, look, subtitles)
    shown = _shown(rows)
    legend = legend_options(look, list(shown))
    legend_lines = -(-len(shown) // look.legend_columns(list(shown)))
    top = (max(title.count("\n") for title in plan.titles) + 1.3) * look.line
    bottom = 1.1 * legend_lines * look.line + 0.5 * look.line * bool(shown)
    notes = [(lines + 0.2 * bool(lines)) * look.line for lines in plan.notes]
    height = top + sum(plan.heights) + sum(notes) + GAP * (len(rows) - 1) + bottom
    with matplotlib.rc_context(style(look)):
        figure = Figure((look.width, height))
        below = height - top
        for place, row in enumerate(rows):
            below -= plan.heights[place]
            marked = _marked(row.panels, look)
            for column, item in enumerate(row.panels):
                left = plan.left + column * (plan.panel + GAP)
                box = (left, below, plan.panel, plan.heights[place])
                scales = (look.width, height, look.width, height)
                axes = figure.add_axes(tuple(np.divide(box, scales)))
                _draw_panel(axes, item, look, plan.panel)
                if marked[column]:
                    _draw_marks(axes, item, sides)
                if column == 0:
                    axes.set_ylabel(plan.names[place], labelpad=2)
                if place == 0:
                    axes.set_title(plan.titles[column], pad=0.2 * look.font_pt)
            below -= notes[place] + GAP
        if shown:
            figure.legend(
                handles=[Patch(facecolor=colour, label=name) for name, colour in shown.items()],
                loc="lower center",
                **legend,
            )
    return figure


def bar_mm(width_mm: float) -> float:
    """Length of the scale bar in a panel of such a width: 1, 2 or 5 times a power of ten."""
    longest = LONGEST_BAR * width_mm
    power = 10.0 ** np.floor(np.log10(longest))
    return float(max(step * power for step in (1, 2, 5) if step * power <= longest))


def _plan(
    rows: Sequence[Row], titles: Sequence[str], look: Look, subtitles: Sequence[str]
) -> _Plan:
    """The sizes of all parts: panels take the width that the rows' names leave."""
    columns = len(titles)
    for lines in range(1, 7):
        left = (lines + 0.4) * look.line
        panel = (look.width - left - GAP * (columns - 1)) / columns
        heights = [panel * max(p.size_mm[0] / p.size_mm[1] for p in row.panels) for row in rows]
        names = [look.wrapped(row.name, h) for row, h in zip(rows, heights, strict=True)]
        if max(name.count("\n") for name in names) < lines:
            break
    above = [look.wrapped(title, panel) for title in titles]
    if subtitles:
        wrapped = [look.wrapped(text, panel) for text in subtitles]
        above = [f"{title}\n{text}".rstrip() for title, text in zip(above, wrapped, strict=True)]
        # a title stands at the same height with and without a second part
        tallest = max(text.count("\n") for text in above)
        above = [text + "\n" * (tallest - text.count("\n")) for text in above]
    notes = [
        max(look.wrapped(p.note, panel).count("\n") + bool(p.note) for p in row.panels)
        for row in rows
    ]
    return _Plan(above, names, notes, left, panel, heights)


def _shown(rows: Sequence[Row]) -> dict[str, str]:
    """Name to colour of all labels that the panels show, in the labels' order."""
    panels = [panel for row in rows for panel in row.panels]
    found: dict[str, str] = {}
    for panel in panels:
        found |= panel.shown
    order = list(dict.fromkeys(name for panel in panels for name in panel.names))
    return {name: found[name] for name in order if name in found}


def _marked(panels: Sequence[Panel], look: Look) -> list[bool]:
    """Which panels of a row have marks; see `Look.marks`."""
    if look.marks != "first":
        return [look.marks == "all"] * len(panels)
    before = [None, *(panel.size_mm for panel in panels[:-1])]
    return [panel.size_mm != other for panel, other in zip(panels, before, strict=True)]


def _draw_panel(axes: Axes, item: Panel, look: Look, width: float) -> None:
    rows, columns = item.image.shape
    axes.imshow(
        item.pixels(filled=look.style != "contour", outlined=False),
        aspect=item.aspect,
        extent=(0, columns, rows, 0),
        interpolation="antialiased",
    )
    if look.style != "fill":
        _draw_contours(axes, item, max(THINNEST_PT, CONTOUR_PT * min(1.0, width)))
    axes.set(xticks=[], yticks=[], xlim=(0, columns), ylim=(rows, 0), anchor="N")
    axes.spines[:].set_visible(False)
    if item.note:
        note = look.wrapped(item.note, width)
        axes.set_xlabel(note, color=SOFT, labelpad=0.2 * look.font_pt)
    if item.frame is not None:
        left, top, wide, high = item.frame
        corner = (left, 1 - top - high)
        frame: dict[str, Any] = {"fill": False, "edgecolor": "white", "lw": 0.8}
        axes.add_patch(Rectangle(corner, wide, high, transform=axes.transAxes, **frame))


def _draw_contours(axes: Axes, item: Panel, width_pt: float) -> None:
    """The border of each label, along the pixels' edges with corners cut."""
    for mask, colour in _masks(item):
        # a rim of nothing closes contours at the panel's edge
        x, y = (np.arange(size + 2) - 0.5 for size in mask.shape[::-1])
        axes.contour(
            x, y, np.pad(mask, 1).astype(float), [0.5], colors=[colour], linewidths=width_pt
        )


def _masks(item: Panel) -> Iterator[tuple[np.ndarray, str]]:
    """Mask and colour of each label that a panel shows."""
    if item.labels is not None:
        for name, colour in item.shown.items():
            yield item.labels == list(item.names).index(name) + 1, colour


def _draw_marks(axes: Axes, item: Panel, sides: tuple[str, str]) -> None:
    """A scale bar at the lower left, and the patient's sides at the edges."""
    rows, columns = item.image.shape
    length = bar_mm(item.size_mm[1])
    left, low = INSET * columns, (1 - INSET) * rows
    ends = [left, left + length / item.pixel_mm[1]]
    under: Mapping[str, Any] = {"solid_capstyle": "butt", "color": "black", "lw": 2.6, "alpha": 0.5}
    axes.plot(ends, [low, low], **under)
    axes.plot(ends, [low, low], color="white", lw=1.4, solid_capstyle="butt", gid="scale-bar")
    text: dict[str, Any] = {"color": "white", "bbox": BACKGROUND}
    axes.annotate(
        f"{length:g} mm", (left, low), (0, 2.5), textcoords="offset points", va="bottom", **text
    )
    for place, letter, align in zip(
        (INSET / 2, 1 - INSET / 2), sides, ("left", "right"), strict=True
    ):
        axes.text(place, 0.5, letter, ha=align, va="center", transform=axes.transAxes, **text)

"""Plots of a study's arms as inline SVG: every run as a dot, learning curves, the labels curve."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from pipeline.reporting.drawing import DASHES, INK, LINE, SERIES, canvas, title_each, traced

MARKERS = "os^v"  # so that curves are told apart without colours


@dataclass(frozen=True)
class Dots:
    """One arm's row of the plot of all runs.

    Attributes:
        values: run to value; NaN: none.
        mean: over them.
        low, high: its interval; None: none is known.
        published: what was published; None: nothing.
    """

    values: Mapping[str, float]
    mean: float | None
    low: float | None = None
    high: float | None = None
    published: float | None = None


@dataclass(frozen=True)
class Band:
    """A line with the range of the runs around it.

    Attributes:
        x: of each point.
        mean, low, high: over the runs, as many.
    """

    x: Sequence[float]
    mean: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Grown:
    """A curve of the plot of labels.

    Attributes:
        of: what it is a curve of.
        x, y: labels and score of each run.
        fit: x and score along the fitted curve; None: none fits.
        ahead: what the curve says further on, at `ahead_at`; None: nothing.
        ahead_at: number of labels.
    """

    of: str
    x: Sequence[float]
    y: Sequence[float]
    fit: tuple[Sequence[float], Sequence[float]] | None = None
    ahead: Dots | None = None
    ahead_at: float = 0.0


def arm_plot(name: str, arms: Mapping[str, Dots], label: str) -> str:
    """An SVG with a row for each arm: a dot for each run, their mean, its interval, a diamond for
    what was published.

    Args:
        name: unique within the page.
        arms: label of the row to what it shows.
        label: of the horizontal axis.
    """
    with canvas(name, (7.2, 1.0 + 0.34 * len(arms))) as (axes, svg):
        for row, dots in enumerate(arms.values()):
            known = {name: value for name, value in dots.values.items() if not np.isnan(value)}
            values = np.asarray(list(known.values()))
            # a fixed zigzag keeps equal values apart
            shift = np.resize([-0.14, 0, 0.14], len(values))
            if dots.low is not None and dots.high is not None:
                axes.plot([dots.low, dots.high], [row, row], color=SERIES[1], lw=1.4)
            drawn = axes.scatter(values, row + shift, s=20, color=SERIES[0], alpha=0.7, zorder=2)
            title_each(drawn, [f"{name}: {value:.2f}" for name, value in known.items()])
            if dots.mean is not None:
                axes.plot([dots.mean] * 2, [row - 0.3, row + 0.3], color=SERIES[1], lw=2.2)
            if dots.published is not None:
                axes.plot(dots.published, row, "D", color=INK, markersize=5, fillstyle="none")
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_yticks(range(len(arms)), list(arms))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(arms) - 0.4, -0.6)
        axes.set_xlabel(label)
        _legend(axes, arms.values())
    return svg[0]


def _legend(axes: Axes, rows: Collection[Dots]) -> None:
    """What the marks mean, of those that are there."""
    marks = [Line2D([], [], color=SERIES[0], marker="o", lw=0, markersize=4.5, label="a run")]
    marks.append(Line2D([], [], color=SERIES[1], marker="|", lw=0, ms=10, mew=2.2, label="mean"))
    if any(dots.low is not None for dots in rows):
        marks.append(Line2D([], [], color=SERIES[1], lw=1.4, label="95% interval"))
    if any(dots.published is not None for dots in rows):
        diamond: dict[str, Any] = {
            "color": INK,
            "marker": "D",
            "lw": 0,
            "markersize": 5,
            "fillstyle": "none",
        }
        marks.append(Line2D([], [], label="published", **diamond))
    axes.legend(handles=marks, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)


def learning_plot(name: str, arms: Mapping[str, Band], label: str) -> str:
    """An SVG with a line for each arm over the epochs, the range of its runs behind it.

    Args:
        name: unique within the page.
        arms: label to line.
        label: of the vertical axis.
    """
    with canvas(name, (4.6, 2.6 + 0.17 * (len(arms) // 2))) as (axes, svg):
        for (title, band), colour, dash in zip(
            arms.items(), cycle(SERIES), cycle(DASHES), strict=False
        ):
            options: dict[str, Any] = {"color": colour, "label": title}
            if len(band.x) == 1:
                traced(*axes.plot(band.x, band.mean, "o", markersize=3.5, **options))
                continue
            (line,) = axes.plot(band.x, band.mean, dash, lw=1.5, **options)
            traced(
                line, axes.fill_between(band.x, band.low, band.high, fc=colour, alpha=0.15, lw=0)
            )
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.figure.legend(loc="outside upper left", ncols=3, fontsize=8.5)
    return svg[0]


def labels_plot(name: str, curves: Sequence[Grown], label: str, x_label: str) -> str:
    """An SVG of a score against the number of labels: every run, the fitted curves, what more give.

    Args:
        name: unique within the page.
        curves: one, or several, each in a colour of its own.
        label, x_label: of the axes.
    """
    with canvas(name, (7.2, 3.2)) as (axes, svg):
        for place, curve in enumerate(curves):
            if len(curves) == 1:
                dots, line, ahead = SERIES[:3]
                words: list[str | None] = ["a run", "fitted curve", "twice the labels"]
            else:
                dots = line = ahead = SERIES[place % len(SERIES)]
                words = [curve.of, None, None]
            marker = MARKERS[place % len(MARKERS)]
            axes.plot(curve.x, curve.y, marker, color=dots, alpha=0.7, ms=4.5, label=words[0])
            if curve.fit is not None:
                axes.plot(*curve.fit, color=line, label=words[1])
            if curve.ahead is not None and curve.ahead.mean is not None:
                mean, low, high = curve.ahead.mean, curve.ahead.low, curve.ahead.high
                axes.plot(curve.ahead_at, mean, "D", color=ahead, ms=5, label=words[2])
                if low is not None and high is not None:
                    axes.plot([curve.ahead_at] * 2, [low, high], color=ahead, lw=1.4)
        axes.set_xscale("log", base=2)
        numbers = [int(value) for curve in curves for value in curve.x]
        numbers += [int(curve.ahead_at) for curve in curves if curve.ahead is not None]
        ticks = sorted(set(numbers))
        axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(x_label)
        axes.set_ylabel(label)
        axes.grid(axis="x", color=LINE)
        axes.legend()
    return svg[0]

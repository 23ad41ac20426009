"""Box plots of runs' scores, organ by organ, with what differs from the first run."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.reporting.look import Look, legend_options
from pipeline.reporting.plots import LINE, run_colour, style
from pipeline.scoring.comparison import marks
from pipeline.scoring.run_sheet import case_values, means
from pipeline.scoring.runs import ScoredRun
from pipeline.scoring.scores import Score
from pipeline.scoring.sheet import number
from pipeline.scoring.significance import stars
from pipeline.scoring.tables import OVERALL

LOWEST, HIGHEST = 1.5, 2.2  # height of the axes, inches
TICKS = 4  # room for the organs' names, in lines of text
AXES = 0.4  # of the figure's height, at least
ROUNDING = 1e-6  # of ticks
DRAWN = "Line: median; diamond: mean; dots: cases."
STARS_LINES = 1.6  # height of three stars and the gap below them, in lines of text


def box_plot(
    runs: Sequence[ScoredRun],
    score: Score,
    look: Look,
    compared: Sequence[Mapping[str, Any]] = (),
) -> Figure:
    """Boxes of each organ and run over the cases, with every case as a dot and the mean.

    A box spans the quartiles, its line is the median, a diamond the mean; whiskers reach the
    furthest case within 1.5 times the box. The last group is the cases' means over organs. Stars
    above a run's box say how sure it is that it differs from the first run.

    Args:
        runs: comparable ones.
        score: which one to draw.
        look: width and font size.
        compared: of `comparison`, the rows of this score; empty: no stars.
    """
    groups = [*runs[0].organs, OVERALL]
    labels = [_named(run, score, look) for run in runs]
    legend = legend_options(look, labels)
    note = look.wrapped(f"{DRAWN} {marks(runs, compared)}".rstrip(), look.width)
    lines = note.count("\n") + 1 + sum(label.count("\n") + 1 for label in labels)
    height = float(np.clip(0.38 * look.width, LOWEST, HIGHEST)) + (TICKS + lines) * look.line
    with matplotlib.rc_context(style(look)):
        figure = Figure((look.width, height), layout="constrained")
        axes = figure.subplots()
        width = 0.78 / len(runs)
        for index, run in enumerate(runs):
            places = np.arange(len(groups)) + (index - (len(runs) - 1) / 2) * width
            values = case_values(run, score)
            _draw_boxes(axes, values, places, width, run_colour(index), labels[index])
            # the last mean is over the organs' means, as in all tables
            axes.plot(places, means(run, score), "D", ms=2.6, mfc="white", mec="black", mew=0.6)
            _draw_stars(axes, values, places, groups, [r for r in compared if r["run"] == run.name])
        _label(axes, groups, score, look, height)
        if any(text.get_text() for text in axes.texts):
            low, high = axes.get_ylim()
            room = STARS_LINES * look.line / (AXES * height)
            axes.set_ylim(low, low + (high - low) / (1 - room))
        if score.kind == "overlap":
            # there is room beyond 0 and 1, but no score
            limits = axes.get_ylim()
            axes.set_yticks([tick for tick in axes.get_yticks() if -ROUNDING < tick < 1 + ROUNDING])
            axes.set_ylim(limits)
        figure.legend(loc="outside upper left", **legend)
        figure.supxlabel(note, x=0.0, ha="left", size=look.font_pt)
    return figure


def _named(run: ScoredRun, score: Score, look: Look) -> str:
    """A run's entry in the legend: its name and its own mean."""
    mean = means(run, score)[-1]
    shown = "" if np.isnan(mean) else f", mean {number(mean, score.digits)}"
    return look.wrapped(run.name + shown, look.width - 4 * look.line)


def _draw_boxes(
    axes: Axes,
    values: NDArray[np.float64],
    places: NDArray[np.floating],
    width: float,
    colour: str,
    label: str,
) -> None:
    """The boxes of one run: values are (cases, groups)."""
    counted = [column[~np.isnan(column)] for column in values.T]
    drawn = axes.boxplot(
        counted,
        positions=places,
        widths=0.8 * width,
        patch_artist=True,
        showfliers=False,
        manage_ticks=False,
        boxprops={"facecolor": colour, "alpha": 0.35, "edgecolor": colour, "lw": 0.7},
        whiskerprops={"color": colour, "lw": 0.7},
        capprops={"color": colour, "lw": 0.7},
        medianprops={"color": "#000000", "lw": 1.0},
    )
    drawn["boxes"][0].set_label(label)
    for place, found in zip(places, counted, strict=True):
        # a fixed zigzag keeps equal values apart
        jitter = np.resize([-0.15, 0.0, 0.15], len(found)) * width
        axes.plot(place + jitter, found, "o", color=colour, ms=1.8, mew=0)


def _draw_stars(
    axes: Axes,
    values: NDArray[np.float64],
    places: NDArray[np.floating],
    groups: Sequence[str],
    compared: Sequence[Mapping[str, Any]],
) -> None:
    """Stars above the boxes of one run, one above the other, so that they keep to their box."""
    found = {row["organ"]: stars(row["p_holm"]) for row in compared}
    for place, group, column in zip(places, groups, values.T, strict=True):
        if shown := found.get(group):
            axes.annotate(
                "\n".join(shown),
                (float(place), float(np.nanmax(column))),
                (0, 2),
                textcoords="offset points",
                linespacing=0.5,
                ha="center",
                va="bottom",
            )


def _label(axes: Axes, groups: Sequence[str], score: Score, look: Look, height: float) -> None:
    # labels at 30 degrees need twice their height each
    is_wide = look.width / (len(groups) + 1) >= 2 * look.line
    turned: dict[str, Any] = {
        "rotation": 30 if is_wide else 90,
        "ha": "right" if is_wide else "center",
    }
    axes.set_xticks(range(len(groups)), groups, **turned)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.axvline(len(groups) - 1.5, color=LINE, lw=0.8)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")
    axes.set_ylabel(look.wrapped(score.label, 0.65 * height))

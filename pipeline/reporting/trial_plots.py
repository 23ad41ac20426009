"""The plots of a search, all of one size: history, importance, parallel coordinates, slices."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from pipeline.core.params import search_space
from pipeline.reporting.drawing import LINE, SERIES, canvas, title_each

SIZE = (4.6, 2.5)  # inches
MOST_SLICES = 12  # keys with a plot of their own
ROOM = 0.08  # share of a scale that stays free at its ends


def plots(
    trials: pd.DataFrame, tried: Mapping[str, Any], importances: Mapping[str, float]
) -> list[tuple[str, str]]:
    """Title and SVG of every plot.

    Args:
        trials: of trials.csv, one row at least.
        tried: `search.space`, without keys that weren't searched.
        importances: key to its share, largest first; empty: not known.
    """
    found = [("History", history(trials))]
    if importances:
        found.append(("Importance", importance(importances)))
    scored = trials[trials["value"].notna()]
    if scored.empty:
        return found
    if len(tried) > 1:
        found.append(("Parallel coordinates", parallel(scored, tried)))
    order = sorted(tried, key=lambda key: -importances.get(key, 0.0))
    for number, key in enumerate(order[:MOST_SLICES]):
        found.append((f"Slice: {key}", slice_plot(f"slice-{number}", scored, key, tried[key])))
    return found


def history(trials: pd.DataFrame) -> str:
    """A dot for each trial, hollow where it was pruned, and a line for the best complete one."""
    x, values = trials["number"].to_numpy(), trials["value"].to_numpy(float)
    complete = (trials["state"] == "complete").to_numpy()
    with canvas("trials", SIZE) as (axes, svg):
        best = np.fmax.accumulate(np.where(complete, values, np.nan))
        axes.step(x, best, where="post", color=SERIES[1], label="best so far")
        _dots(axes, x, values, complete, x)
        axes.set_xlabel("trial")
        axes.set_ylabel("Dice")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend()
    return svg[0]


def importance(importances: Mapping[str, float]) -> str:
    """A bar for each key."""
    with canvas("importance", SIZE) as (axes, svg):
        bars = axes.barh(range(len(importances)), list(importances.values()), 0.6, color=SERIES[0])
        axes.bar_label(bars, fmt="%.2f", padding=3)
        axes.margins(x=0.12)
        axes.set_yticks(range(len(importances)), list(importances))
        axes.set_ylim(len(importances) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.grid(axis="x")
        axes.set_xlabel("share of the spread in Dice")
    return svg[0]


def parallel(trials: pd.DataFrame, tried: Mapping[str, Any]) -> str:
    """A line for each trial through its values, stronger with higher Dice; the best in another
    colour.
    """
    values = trials["value"].to_numpy(float)
    complete = (trials["state"] == "complete").to_numpy()
    scales = {key: _Scale(given, trials[key]) for key, given in tried.items()}
    dice = _Scale({"low": values.min(), "high": values.max()}, trials["value"])
    columns = np.stack([scale.places(trials[key]) for key, scale in scales.items()])
    columns = np.vstack([columns, dice.places(trials["value"])])
    strength = (values - values.min()) / max(np.ptp(values), 1e-12)
    best = np.argmax(np.where(complete, values, -1.0)) if complete.any() else -1
    titles = [_title(*pair) for pair in zip(trials["number"], values, strict=True)]
    with canvas("parallel", SIZE) as (axes, svg):
        for number, line in enumerate(columns.T):
            if number != best:
                alpha = 0.15 + 0.6 * float(strength[number])
                (drawn,) = axes.plot(line, color=SERIES[0], alpha=alpha, linewidth=1)
                title_each(drawn, [titles[number]])
        if best >= 0:
            (drawn,) = axes.plot(columns[:, best], color=SERIES[1], linewidth=2, label="best")
            title_each(drawn, [titles[best]])
            axes.legend(loc="upper left", bbox_to_anchor=(0, 1.16))
        for place, scale in enumerate([*scales.values(), dice]):
            axes.axvline(place, color=LINE, linewidth=0.8, zorder=0)
            for height, text in scale.ticks():
                axes.text(place - 0.04, height, text, va="center", ha="right")
        names = [key.replace(".", ".\n") for key in scales]
        axes.set_xticks(range(len(columns)), [*names, "Dice"])
        axes.set_yticks([])
        axes.set_ylim(-ROOM, 1 + ROOM)
        axes.set_xlim(-0.4, len(columns) - 0.8)
        axes.spines["left"].set_visible(False)
    return svg[0]


def slice_plot(name: str, trials: pd.DataFrame, key: str, given: Any) -> str:
    """Dice over the values of one key."""
    scale = _Scale(given, trials[key])
    complete = (trials["state"] == "complete").to_numpy()
    with canvas(name, SIZE) as (axes, svg):
        if scale.names:
            x = scale.places(trials[key]) * max(len(scale.names) - 1, 1)
            axes.set_xticks(range(len(scale.names)), scale.names)
            axes.set_xlim(-0.5, len(scale.names) - 0.5)
        else:
            x = trials[key].to_numpy(float)
            if scale.log:
                _log_axis(axes)
        _dots(axes, x, trials["value"].to_numpy(float), complete, trials["number"].to_numpy())
        axes.set_xlabel(key)
        axes.set_ylabel("Dice")
        if not complete.all():
            axes.legend()
    return svg[0]


def _log_axis(axes: Axes) -> None:
    """A logarithmic axis whose marks are plain numbers: a page has no typeset powers of ten."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _dots(
    axes: Axes,
    x: NDArray[Any],
    values: NDArray[np.float64],
    complete: NDArray[np.bool_],
    numbers: NDArray[Any],
) -> None:
    """A dot for each trial, which says its number."""
    pruned = ~complete & ~np.isnan(values)
    for chosen, label in ((complete, "trial"), (pruned, "pruned")):
        if chosen is pruned and not pruned.any():
            continue
        filled = SERIES[0] if chosen is complete else "none"
        marks = axes.scatter(
            x[chosen],
            values[chosen],
            s=16,
            facecolors=filled,
            edgecolors=SERIES[0],
            label=label,
            zorder=3,
        )
        found = zip(numbers[chosen], values[chosen], strict=True)
        title_each(marks, [_title(*pair) for pair in found])


def _title(number: int, value: float) -> str:
    return f"trial {number}: Dice {value:.3f}"


class _Scale:
    """The values of a key as heights in [0, 1]: choices in their order, a range by its ends."""

    def __init__(self, given: Any, values: pd.Series) -> None:
        self.names = [_text(choice) for choice in given] if isinstance(given, list) else []
        self.log = isinstance(given, Mapping) and bool(given.get("log", False))
        if not self.names:
            # the first trial and a changed space may lie outside
            ends = [*values.dropna().astype(float), float(given["low"]), float(given["high"])]
            self._low, self._high = self._at(min(ends)), self._at(max(ends))
            self._ends = (min(ends), max(ends))

    def places(self, values: pd.Series) -> NDArray[np.float64]:
        """The heights of values; NaN where a name isn't known."""
        if self.names:
            found = [self._index(value) for value in values]
            return np.array(found, float) / max(len(self.names) - 1, 1)
        span = max(self._high - self._low, 1e-12)
        return np.array([(self._at(float(v)) - self._low) / span for v in values], float)

    def ticks(self) -> Sequence[tuple[float, str]]:
        """Height and text of the marks."""
        if self.names:
            last = max(len(self.names) - 1, 1)
            return [(number / last, name) for number, name in enumerate(self.names)]
        return [(0.0, f"{self._ends[0]:.3g}"), (1.0, f"{self._ends[1]:.3g}")]

    def _at(self, value: float) -> float:
        return float(np.log(value)) if self.log else value

    def _index(self, value: Any) -> float:
        text = _text(value)
        return float(self.names.index(text)) if text in self.names else float("nan")


def _text(value: Any) -> str:
    """A choice as its label; CSV has made floats of whole numbers beside empty fields."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "null"
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return search_space.shown(value)

"""Figures for papers and slides: each as PNG, SVG and PDF, the same bytes for the same numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from pipeline.core.files import atomic_path
from pipeline.reporting.look import FONT, Look
from pipeline.scoring.scores import Score
from pipeline.scoring.tables import OVERALL

# Okabe and Ito's colours in an order in which neighbours differ in lightness too
RUN_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#444444")
LINE, SOFT = "#d9dde3", "#5c6470"
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": SOFT,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": FONT,
    "font.size": 9,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType, embedded: journals refuse Type 3
    "savefig.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "hsam",
    "text.parse_math": False,
}
# what each form would say of its writer and time, left out so that bytes repeat
METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
FORMS = tuple(METADATA)
DPI = 300


def style(look: Look) -> dict[Any, Any]:
    """STYLE with all text in one size."""
    parts = ("axes.title", "axes.label", "xtick.label", "ytick.label", "figure.title")
    return STYLE | {"font.size": look.font_pt} | {f"{part}size": look.font_pt for part in parts}


def save(figure: Figure, path: Path) -> None:
    """Write `<path>.png`, `.svg` and `.pdf`, each atomically and without a date."""
    for form, about in METADATA.items():
        with matplotlib.rc_context(STYLE), atomic_path(Path(f"{path}.{form}")) as temporary:
            figure.savefig(temporary, dpi=DPI, metadata=about)


def run_colour(index: int) -> str:
    """The colour of run `index`; repeats after seven."""
    return RUN_COLOURS[index % len(RUN_COLOURS)]


def difference_plot(rows: Sequence[Mapping[str, Any]], score: Score) -> Figure:
    """Mean difference and its interval of each organ and run.

    Args:
        rows: of `compare.comparison`, those of one score.
        score: the one that the rows are of.
    """
    organs = list(dict.fromkeys(row["organ"] for row in rows))
    runs = list(dict.fromkeys(row["run"] for row in rows))
    with matplotlib.rc_context(STYLE):
        figure = Figure((6.4, 0.9 + (0.16 + 0.16 * len(runs)) * len(organs)), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=SOFT, linewidth=1)
        for index, run in enumerate(runs):
            shift = 0.5 * ((index + 0.5) / len(runs) - 0.5)
            drawn = [row for row in rows if row["run"] == run and row["difference"] is not None]
            axes.errorbar(
                [row["difference"] for row in drawn],
                [organs.index(row["organ"]) + shift for row in drawn],
                xerr=np.array([_error_bars(row) for row in drawn]).reshape(-1, 2).T,
                fmt="o",
                color=run_colour(index + 1),
                markersize=4,
                capsize=2.5,
                label=run,
            )
        axes.set_yticks(range(len(organs)), organs)
        axes.set_ylim(len(organs) - 0.4, -0.6)
        axes.axhline(organs.index(OVERALL) - 0.5, color=LINE, linewidth=0.8)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        bars = ", with 95% interval" if any(row["low"] is not None for row in rows) else ""
        axes.set_xlabel(f"{score.label}: difference to {rows[0]['baseline']}{bars}")
        if len(runs) > 1:
            figure.legend(loc="outside upper left", ncols=min(len(runs), 3))
        else:
            axes.set_title(f"{runs[0]} against {rows[0]['baseline']}", loc="left", fontsize=10)
    return figure


def _error_bars(row: Mapping[str, Any]) -> tuple[float, float]:
    """Lengths of the interval below and above the mean difference; 0 without an interval."""
    if row["low"] is None:
        return 0.0, 0.0
    return abs(row["low"] - row["difference"]), abs(row["high"] - row["difference"])

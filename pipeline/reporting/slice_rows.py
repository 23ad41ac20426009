"""Rows of the paper's figures of slices: predictions side by side, both stages, small organs.

Here are their panels and the slices to choose; `panel_figure.draw` makes a figure of them, the page
of a study a table of pictures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.reporting.panels import (
    DIFFER,
    Box,
    Panel,
    Row,
    difference_panel,
    framed,
    panel,
    zoom_box,
)
from pipeline.reporting.pictures import FigureData, organ_dice
from pipeline.scoring import dice
from pipeline.scoring.run_sheet import means
from pipeline.scoring.runs import ScoredRun
from pipeline.scoring.scores import SCORES
from pipeline.scoring.sheet import number
from pipeline.scoring.tables import REVIEW, read_table
from pipeline.scoring.uncertainty import TWO_STAGES
from pipeline.shards.case import Slice

Chosen = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Grid:
    """Rows of panels, the title of each column, and what stands below each title."""

    titles: Sequence[str]
    rows: Sequence[Row]
    subtitles: Sequence[str]


def prediction_rows(data: FigureData, chosen: Chosen) -> Grid:
    """Image, truth and each run's prediction, with its mean Dice over the slice's organs.

    Args:
        data: the runs and their data.
        chosen: case and slice of each row.
    """
    rows = []
    for case, index in chosen:
        item = data.slice(case, index)
        shown = [data.prediction(run, case, index) for run in data.runs]
        panels = [_panel(data, item, None), _panel(data, item, item.label)]
        panels += [_panel(data, item, labels, _dice(item.label, labels)) for labels in shown]
        rows.append(_row(case, index, panels))
    return Grid(["image", "truth", *_titles(data.runs)], rows, ["", "", *map(_mean, data.runs)])


def stage_rows(data: FigureData, run: ScoredRun, chosen: Chosen, notes: Sequence[str] = ()) -> Grid:
    """Image, truth, stage 1, stage 2, the scored prediction, and where the stages differ.

    Args:
        data: the runs and their data.
        run: of a model with two stages.
        chosen: case and slice of each row.
        notes: text below the last panel of each row; empty: none.
    """
    rows = []
    for place, (case, index) in enumerate(chosen):
        item = data.slice(case, index)
        first, second = (data.stage(run, stage, case, index) for stage in TWO_STAGES)
        labels = [first, second, data.prediction(run, case, index)]
        panels = [_panel(data, item, None), _panel(data, item, item.label)]
        panels += [_panel(data, item, each, _dice(item.label, each)) for each in labels]
        note = notes[place] if notes else ""
        panels.append(difference_panel(item.image, first, second, item.spacing_mm, note))
        rows.append(_row(case, index, panels))
    scored = {"mean": "ensemble"}.get(run.metrics["stage"], f"scored ({run.metrics['stage']})")
    titles = ["image", "truth", "stage 1", "stage 2", scored, DIFFER]
    return Grid(titles, rows, ["", "", "", "", _mean(run), ""])


def zoom_rows(data: FigureData, places: Sequence[tuple[str, int, int]]) -> Grid:
    """A slice with a box on a small organ, and the box enlarged: truth and each run.

    Args:
        data: the runs and their data.
        places: case, slice and organ (index from 0) of each row.
    """
    rows = []
    for case, index, organ in places:
        item = data.slice(case, index)
        box = zoom_box(item.label == organ + 1, item.spacing_mm)
        whole = framed(_panel(data, item, item.label), box)
        panels = [whole, _panel(data, item, None, box=box), _panel(data, item, item.label, box=box)]
        for run in data.runs:
            labels = data.prediction(run, case, index)
            value = dice.dice(item.label == organ + 1, labels == organ + 1)
            panels.append(
                _panel(data, item, labels, f"{data.organs[organ]}: Dice {value:.2f}", box=box)
            )
        rows.append(_row(case, index, panels))
    titles = ["truth", "image", "truth", *_titles(data.runs)]
    return Grid(titles, rows, ["", "", "", *map(_mean, data.runs)])


def fullest_slices(data: FigureData, number: int) -> list[tuple[str, int]]:
    """Case and slice of up to `number` cases, spread evenly over all in the order of their names.

    Of each case the slice that shows the most organs; of equal ones the one with the most of their
    pixels, then the first.
    """
    cases = sorted(data.runs[0].case_ids)
    places = np.linspace(0, len(cases) - 1, min(number, len(cases))).round().astype(int)
    found = []
    for case in [cases[place] for place in np.unique(places)]:
        counts = data.counts(case)
        fullest = np.lexsort((-counts.sum(1), -(counts > 0).sum(1)))[0]
        found.append((case, int(fullest)))
    return found


def worst_slice(data: FigureData, run: ScoredRun) -> tuple[str, int] | None:
    """Case and slice of the run's worst: of the case with the lowest mean Dice the slice with the
    lowest, among those that show at least half as many organs as the fullest.

    None where no case has a score.
    """
    means = run.cases.groupby("case")["dice"].mean().dropna()
    if means.empty:
        return None
    worst = str(means.sort_index().idxmin())
    shown = (data.counts(worst) > 0).sum(1)
    values = []
    for index in np.flatnonzero((shown > 0) & (2 * shown >= shown.max())):
        truth = data.slice(worst, int(index)).label
        predicted = data.prediction(run, worst, int(index))
        values.append((dice.mean(organ_dice(truth, predicted)), int(index)))
    return (worst, min(values)[1]) if values else None


def worst_slices(run: ScoredRun, number: int) -> list[tuple[str, int, str, float]]:
    """Case, slice, organ and disagreement of the review list's first rows whose stages differ.

    A slice is there once, with its first organ.
    """
    review = read_table(run.folder / "review.parquet", REVIEW)
    review = review[review["disagreement"] > 0].drop_duplicates(["case", "slice"]).head(number)
    columns = ["case", "slice", "organ", "disagreement"]
    return list(review[columns].itertuples(index=False, name=None))


def zoom_slices(data: FigureData, number: int, cases: Sequence[str]) -> list[tuple[str, int, int]]:
    """Case, slice and organ (index from 0) to zoom in on.

    The smaller half of the organs take turns, and so do the cases, in the order given. An organ is
    shown on the slice with most of its pixels.
    """
    counts = {case: data.counts(case) for case in data.runs[0].case_ids}
    sizes = np.stack([found.sum(0) for found in counts.values()]).astype(float)
    shown = [column[column > 0] for column in sizes.T]
    usual = [float(np.median(found)) if len(found) else np.inf for found in shown]
    order = np.argsort(usual, kind="stable")
    small = [int(organ) for organ in order[: max(1, len(order) // 2)] if len(shown[organ])]
    found = []
    for turn in range(number * len(small)):
        organ, case = small[turn % len(small)], cases[turn % len(cases)]
        if counts[case][:, organ].any():
            place = (case, int(counts[case][:, organ].argmax()), organ)
            if place not in found:
                found.append(place)
    return found[:number]


def _panel(
    data: FigureData,
    item: Slice,
    labels: NDArray[np.uint8] | None,
    note: str = "",
    *,
    box: Box | None = None,
) -> Panel:
    return panel(item.image, labels, item.spacing_mm, data.organs, box=box, note=note)


def _dice(truth: NDArray[np.uint8], labels: NDArray[np.uint8]) -> str:
    """Mean Dice over the organs in truth or prediction, for a panel's note; "" without organ."""
    values = organ_dice(truth, labels)
    return f"Dice {dice.mean(values):.2f}" if values else ""


def _mean(run: ScoredRun) -> str:
    """A run's mean Dice over all its cases and organs, for below its title."""
    mean, cases = means(run, SCORES["dice"])[-1], len(run.case_ids)
    if np.isnan(mean):
        return ""
    # no-break spaces, so that no line ends inside a number and its name
    over = f"({cases}\u00a0case{'' if cases == 1 else 's'})"
    return f"mean Dice\u00a0{number(mean, SCORES['dice'].digits)} {over}"


def _titles(runs: Sequence[ScoredRun]) -> list[str]:
    return ["prediction"] if len(runs) == 1 else [run.name for run in runs]


def _row(case: str, index: int, panels: Sequence[Panel]) -> Row:
    return Row(f"{case}, slice {index}", panels, (case, index))

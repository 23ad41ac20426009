"""`hsam figures`: the paper's figures from one run or several, as PNG and SVG.

`slices` (Figure 7): image, truth and what each run predicts. `stages-<run>` and
`disagreement-<run>` (Figure 8): both stages, their mean and where they differ, on chosen slices and
on those of the worst disagreement. `zoom` (Figure 6): the smallest organs enlarged, run beside run.
`boxes-<score>`: scores of every case, by organ and run. The same seed chooses the same slices for
every run.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.core.console import say
from pipeline.reporting import plots
from pipeline.reporting.panels import (
    Box,
    Panel,
    Row,
    difference_panel,
    draw,
    framed,
    panel,
    zoom_box,
)
from pipeline.reporting.pictures import (
    FigureData,
    choose_slices,
    organ_dice,
    read_figure_data,
)
from pipeline.scoring import dice
from pipeline.scoring.disagreement import TWO_STAGES
from pipeline.scoring.runs import ScoredRun, longest_voxel_mm, read_runs, run_cautions
from pipeline.scoring.scores import in_view
from pipeline.scoring.tables import REVIEW, read_table
from pipeline.shards.case import Slice

Chosen = Sequence[tuple[str, int]]


def run(
    folders: Sequence[Path],
    prepared: Path,
    out: Path,
    *,
    names: Sequence[str] = (),
    slices: int = 4,
    seed: int = 0,
) -> None:
    """Draw every figure and write it.

    Args:
        folders, names: see `runs.read_runs`.
        prepared: published folder of the prepare stage.
        out: folder to write to; other files in it stay.
        slices: how many rows each figure of slices has.
        seed: of the random choice of slices.

    Raises:
        UserError: runs that can't be compared, have no predictions or saw other data.
    """
    data = read_figure_data(prepared, read_runs(folders, names))
    figures = draw_all(data, slices, np.random.default_rng(seed))
    for name, figure in figures.items():
        plots.save(figure, out / name)
    for sentence in run_cautions(data.runs):
        say(f"warning: {sentence}")
    say(f"figures: {', '.join(figures)} as .png and .svg in {out}")


def draw_all(data: FigureData, slices: int, random: np.random.Generator) -> dict[str, Figure]:
    """Every figure by its file name without the ending.

    Args:
        data: the runs and their data.
        slices: how many rows each figure of slices has.
        random: chooses the slices.
    """
    cases = data.runs[0].case_ids
    shown = {case: (data.counts(case) > 0).sum(axis=1) for case in cases}
    chosen = sorted(choose_slices(shown, slices, random))
    figures = {"slices": slice_grid(data, chosen)}
    # cases without any organ have nothing to enlarge
    if small := zoom_slices(data, slices, random):
        figures["zoom"] = zoom(data, small)
    for run, name in zip(data.runs, _file_names(data.runs), strict=True):
        if data.has_stages(run):
            figures[f"stages-{name}"] = stages(data, run, chosen)
            if worst := worst_slices(run, slices):
                notes = [f"{organ}, disagreement {value:.2f}" for *_, organ, value in worst]
                shown_worst = [(case, index) for case, index, *_ in worst]
                figures[f"disagreement-{name}"] = stages(data, run, shown_worst, notes)
    for score in in_view("boxes", longest_voxel_mm(data.runs)):
        figures[f"boxes-{score.name}"] = plots.box_plot(data.runs, score)
    return figures


def slice_grid(data: FigureData, chosen: Chosen) -> Figure:
    """Image, truth and each run's prediction, with its mean Dice over the slice's organs.

    Args:
        chosen: case and slice of each row.
    """
    rows = []
    for case, index in chosen:
        item = data.slice(case, index)
        shown = [data.prediction(run, case, index) for run in data.runs]
        panels = [_panel(data, item, None), _panel(data, item, item.label)]
        panels += [_panel(data, item, labels, _dice(item.label, labels)) for labels in shown]
        rows.append(Row(_row_name(case, index), panels))
    return draw(rows, ["image", "truth", *_titles(data.runs)], data.organs)


def stages(data: FigureData, run: ScoredRun, chosen: Chosen, notes: Sequence[str] = ()) -> Figure:
    """Image, truth, stage 1, stage 2, the scored prediction, and where the stages differ.

    Args:
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
        rows.append(Row(_row_name(case, index), panels))
    scored = {"mean": "ensemble"}.get(run.metrics["stage"], f"scored ({run.metrics['stage']})")
    titles = ["image", "truth", "stage 1", "stage 2", scored, "stages differ"]
    return draw(rows, titles, data.organs)


def worst_slices(run: ScoredRun, number: int) -> list[tuple[str, int, str, float]]:
    """Case, slice, organ and disagreement of the slices on which the stages disagree most.

    A slice is there once, with its worst organ.
    """
    review = read_table(run.folder / "review.parquet", REVIEW)
    # in the order of the list: the largest differing area first
    review = review[review["disagreement"] > 0].drop_duplicates(["case", "slice"]).head(number)
    columns = ["case", "slice", "organ", "disagreement"]
    return list(review[columns].itertuples(index=False, name=None))


def zoom(data: FigureData, places: Sequence[tuple[str, int, int]]) -> Figure:
    """A slice with a box on a small organ, and the box enlarged: truth and each run.

    Args:
        places: case, slice and organ (index from 0) of each row.
    """
    rows = []
    for case, index, organ in places:
        item = data.slice(case, index)
        box = zoom_box(item.label == organ + 1, item.spacing_mm)
        whole = framed(_panel(data, item, item.label), box, item.image.shape)
        panels = [whole, _panel(data, item, None, box=box), _panel(data, item, item.label, box=box)]
        for run in data.runs:
            labels = data.prediction(run, case, index)
            value = dice.dice(item.label == organ + 1, labels == organ + 1)
            panels.append(
                _panel(data, item, labels, f"{data.organs[organ]}: Dice {value:.2f}", box=box)
            )
        rows.append(Row(_row_name(case, index), panels))
    titles = ["truth", "image", "truth", *_titles(data.runs)]
    return draw(rows, titles, data.organs)


def zoom_slices(
    data: FigureData, number: int, random: np.random.Generator
) -> list[tuple[str, int, int]]:
    """Case, slice and organ (index from 0) to zoom in on.

    The smaller half of the organs take turns, and so do the cases, in random order. An organ is
    shown on the slice with most of its pixels.
    """
    cases = data.runs[0].case_ids
    counts = {case: data.counts(case) for case in cases}
    sizes = np.stack([counts[case].sum(0) for case in cases]).astype(float)
    shown = [column[column > 0] for column in sizes.T]
    usual = [float(np.median(found)) if len(found) else np.inf for found in shown]
    order = np.argsort(usual, kind="stable")
    small = [int(organ) for organ in order[: max(1, len(order) // 2)] if len(shown[organ])]
    shuffled = [str(case) for case in random.permutation(cases)]
    found = []
    for turn in range(number * len(small)):
        organ, case = small[turn % len(small)], shuffled[turn % len(shuffled)]
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


def _titles(runs: Sequence[ScoredRun]) -> list[str]:
    return ["prediction"] if len(runs) == 1 else [run.name for run in runs]


def _row_name(case: str, index: int) -> str:
    return f"{case}, slice {index}"


def _file_names(runs: Sequence[ScoredRun]) -> list[str]:
    """Names for files, made of the runs' names, each different."""
    plain = [re.sub(r"[^A-Za-z0-9_.-]+", "-", run.name).strip("-.") or "run" for run in runs]
    different = len(set(plain)) == len(plain)
    return plain if different else [f"{index + 1}-{name}" for index, name in enumerate(plain)]

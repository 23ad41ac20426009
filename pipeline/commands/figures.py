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

from pipeline.core.console import say
from pipeline.reporting import plots
from pipeline.reporting.panels import draw
from pipeline.reporting.pictures import FigureData, choose_slices, read_figure_data
from pipeline.reporting.slice_rows import (
    prediction_rows,
    stage_rows,
    worst_slices,
    zoom_rows,
    zoom_slices,
)
from pipeline.scoring.runs import ScoredRun, longest_voxel_mm, read_runs, run_cautions
from pipeline.scoring.scores import in_view


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
    grids = {"slices": prediction_rows(data, chosen)}
    shuffled = [str(case) for case in random.permutation(cases)]
    # cases without any organ have nothing to enlarge
    if small := zoom_slices(data, slices, shuffled):
        grids["zoom"] = zoom_rows(data, small)
    for run, name in zip(data.runs, _file_names(data.runs), strict=True):
        if data.has_stages(run):
            grids[f"stages-{name}"] = stage_rows(data, run, chosen)
            if worst := worst_slices(run, slices):
                notes = [f"{organ}, disagreement {value:.2f}" for *_, organ, value in worst]
                shown_worst = [(case, index) for case, index, *_ in worst]
                grids[f"disagreement-{name}"] = stage_rows(data, run, shown_worst, notes)
    figures = {name: draw(grid.rows, grid.titles, data.organs) for name, grid in grids.items()}
    for score in in_view("boxes", longest_voxel_mm(data.runs)):
        figures[f"boxes-{score.name}"] = plots.box_plot(data.runs, score)
    return figures


def _file_names(runs: Sequence[ScoredRun]) -> list[str]:
    """Names for files, made of the runs' names, each different."""
    plain = [re.sub(r"[^A-Za-z0-9_.-]+", "-", run.name).strip("-.") or "run" for run in runs]
    different = len(set(plain)) == len(plain)
    return plain if different else [f"{index + 1}-{name}" for index, name in enumerate(plain)]

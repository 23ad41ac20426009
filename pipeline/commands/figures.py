"""`hsam figures`: the paper's figures from one run or several, as PNG, SVG and PDF, and tables.

`slices` (Figure 7): image, truth and what each run predicts. `stages-<run>` and
`disagreement-<run>` (Figure 8): both stages, their mean and where they differ, on chosen slices and
on the first of the review list. `zoom` (Figure 6): the smallest organs enlarged, run beside run.
`boxes-<score>`: scores of every case, by organ and run. `table-<score>`: their means, as LaTeX and
Markdown. The same seed chooses the same slices for every run.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipeline.core import files
from pipeline.core.console import say, steps
from pipeline.reporting import plots
from pipeline.reporting.box_plots import box_plot
from pipeline.reporting.look import Look
from pipeline.reporting.panel_figure import draw
from pipeline.reporting.pictures import FigureData, choose_slices, read_figure_data
from pipeline.reporting.slice_rows import (
    Grid,
    prediction_rows,
    stage_rows,
    worst_slices,
    zoom_rows,
    zoom_slices,
)
from pipeline.scoring.comparison import comparison
from pipeline.scoring.run_sheet import run_sheet
from pipeline.scoring.runs import ScoredRun, longest_voxel_mm, read_runs, run_cautions
from pipeline.scoring.scores import Score, in_view
from pipeline.scoring.sheet import latex, markdown


def run(
    folders: Sequence[Path],
    prepared: Path,
    out: Path,
    *,
    names: Sequence[str] = (),
    slices: int = 4,
    seed: int = 0,
    look: Look | None = None,
) -> None:
    """Draw every figure and write it, and the tables.

    Args:
        folders, names: see `runs.read_runs`.
        prepared: published folder of the prepare stage.
        out: folder to write to; other files in it stay.
        slices: how many rows each figure of slices has.
        seed: of the random choice of slices.
        look: width, font size, style and marks; None: those of `Look`.

    Raises:
        UserError: runs that can't be compared, have no predictions or saw other data.
    """
    data = read_figure_data(prepared, read_runs(folders, names))
    compared = _compared(data.runs)
    figures = plan(data, slices, np.random.default_rng(seed), look or Look(), compared)
    with steps("figures", len(figures)) as progress:
        for name, drawn in figures.items():
            plots.save(drawn(), out / name)
            progress.advance(name)
    tables = _write_tables(data.runs, out, compared)
    for sentence in run_cautions(data.runs):
        say(f"warning: {sentence}")
    forms = ", ".join(f".{form}" for form in plots.FORMS)
    say(f"figures: {', '.join(figures)} as {forms} in {out}")
    say(f"figures: {', '.join(tables)} as .tex, .md in {out}")


def plan(
    data: FigureData,
    slices: int,
    random: np.random.Generator,
    look: Look,
    compared: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
) -> dict[str, Callable[[], Figure]]:
    """What draws each figure, by its file name without the ending.

    Args:
        data: the runs and their data.
        slices: how many rows each figure of slices has.
        random: chooses the slices.
        look: width, font size, style and marks.
        compared: score to its rows of `comparison`; None: box plots have no stars.
    """
    cases = data.runs[0].case_ids
    shown = {case: (data.counts(case) > 0).sum(axis=1) for case in cases}
    chosen = sorted(choose_slices(shown, slices, random))
    grids: dict[str, Callable[[], Grid]] = {"slices": partial(prediction_rows, data, chosen)}
    shuffled = [str(case) for case in random.permutation(cases)]
    # cases without any organ have nothing to enlarge
    if small := zoom_slices(data, slices, shuffled):
        grids["zoom"] = partial(zoom_rows, data, small)
    for run, name in zip(data.runs, _file_names(data.runs), strict=True):
        if data.has_stages(run):
            grids[f"stages-{name}"] = partial(stage_rows, data, run, chosen)
            if worst := worst_slices(run, slices):
                notes = [f"{organ}, disagreement {value:.2f}" for *_, organ, value in worst]
                shown_worst = [(case, index) for case, index, *_ in worst]
                grids[f"disagreement-{name}"] = partial(stage_rows, data, run, shown_worst, notes)
    figures: dict[str, Callable[[], Figure]] = {
        name: partial(_slices_figure, grid, look, data.sides) for name, grid in grids.items()
    }
    for score in _boxed(data.runs):
        rows = (compared or {}).get(score.name, ())
        figures[f"boxes-{score.name}"] = partial(box_plot, data.runs, score, look, rows)
    return figures


def _boxed(runs: Sequence[ScoredRun]) -> Sequence[Score]:
    """The scores that have a box plot and a table."""
    return in_view("boxes", longest_voxel_mm(runs))


def _compared(runs: Sequence[ScoredRun]) -> dict[str, list[dict[str, Any]]]:
    """Each of `_boxed` to its rows of `comparison`."""
    names = [score.name for score in _boxed(runs)]
    rows = comparison(runs, names)
    return {name: [row for row in rows if row["score"] == name] for name in names}


def _slices_figure(grid: Callable[[], Grid], look: Look, sides: tuple[str, str]) -> Figure:
    read = grid()
    return draw(read.rows, read.titles, look, sides, read.subtitles)


def _write_tables(
    runs: Sequence[ScoredRun], out: Path, compared: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[str]:
    """Write a table of each score that has a box plot; their names."""
    names = []
    for score in _boxed(runs):
        sheet = run_sheet(runs, score, compared[score.name])
        files.write_text(out / f"{sheet.name}.tex", latex(sheet))
        files.write_text(out / f"{sheet.name}.md", markdown(sheet))
        names.append(sheet.name)
    return names


def _file_names(runs: Sequence[ScoredRun]) -> list[str]:
    """Names for files, made of the runs' names, each different."""
    plain = [re.sub(r"[^A-Za-z0-9_.-]+", "-", run.name).strip("-.") or "run" for run in runs]
    different = len(set(plain)) == len(plain)
    return plain if different else [f"{index + 1}-{name}" for index, name in enumerate(plain)]

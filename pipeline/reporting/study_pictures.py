"""Figures 6, 7 and 8 of the paper's supplement for a study's arms, on the same slices.

Which slices are shown follows from the truth alone, not from what a model makes of them; only the
last row of the stages is chosen by its score, and says so.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.reporting.drawing import data_uri
from pipeline.reporting.panels import Panel, Row
from pipeline.reporting.pictures import FigureData, read_figure_data
from pipeline.reporting.places import place
from pipeline.reporting.slice_rows import (
    Grid,
    fullest_slices,
    prediction_rows,
    stage_rows,
    worst_slice,
    zoom_rows,
    zoom_slices,
)
from pipeline.scoring.runs import ScoredRun, read_runs

ROWS, ZOOMED = 4, 3  # slices of a figure; of the one with small organs

FULLEST = (
    f"Of up to {ROWS} test cases, spread evenly in the order of their names, the slice that shows "
    "the most organs."
)
SMALLEST = (
    f"{ZOOMED} places: the smaller half of the organs and the test cases take turns, the smallest "
    "organ and the first case first; an organ is shown on the slice with most of its pixels."
)


def galleries(
    kinds: Sequence[str], runs: Mapping[str, Path], prepared: Path, staged: str | None
) -> list[dict[str, Any]]:
    """The figures of a study.

    Args:
        kinds: "models", "predictions", "stages".
        runs: arm to the folder of the evaluation that is shown of it.
        prepared: folder of the volumes that all were evaluated on.
        staged: the arm whose stages are shown; None: the first that has two.

    Returns:
        For each figure `kind`, `title`, `note` (the rule of choice), `titles` of the columns
        and `rows` of pictures, with their `place` in a case browser; a figure without a slice to
        show is left out.

    Raises:
        UserError: runs that can't be shown side by side.
    """
    scored = read_runs(list(runs.values()), list(runs))
    found = []
    for kind in kinds:
        # one figure's label maps at a time are in memory
        data = read_figure_data(prepared, scored)
        drawn = DRAWN[kind](data, staged)
        if drawn is not None:
            title, note, grid = drawn
            rows = [_row(row) for row in grid.rows]
            found.append(
                {
                    "kind": kind,
                    "title": title,
                    "note": note,
                    "titles": list(grid.titles),
                    "rows": rows,
                }
            )
    return found


Drawn = tuple[str, str, Grid] | None


def _models(data: FigureData, staged: str | None) -> Drawn:
    places = zoom_slices(data, ZOOMED, sorted(data.runs[0].case_ids))
    if not places:
        return None
    return "Small organs, arm beside arm", SMALLEST, zoom_rows(data, places)


def _predictions(data: FigureData, staged: str | None) -> Drawn:
    return "Predictions", FULLEST, prediction_rows(data, fullest_slices(data, ROWS))


def _stages(data: FigureData, staged: str | None) -> Drawn:
    run = _staged_run(data, staged)
    if run is None:
        return None
    chosen, note = fullest_slices(data, ROWS), f"{FULLEST} Of {run.name}."
    worst = worst_slice(data, run)
    if worst is not None:
        chosen.append(worst)
        note += (
            " The last row is the worst: of the case with the lowest mean Dice the slice with the "
            "lowest, among those that show at least half as many organs as the fullest."
        )
    return "Both stages and their mean", note, stage_rows(data, run, chosen)


DRAWN = {"models": _models, "predictions": _predictions, "stages": _stages}


def _staged_run(data: FigureData, staged: str | None) -> ScoredRun | None:
    two = [run for run in data.runs if data.has_stages(run)]
    return next((run for run in two if run.name == staged), two[0] if two else None)


def _row(row: Row) -> dict[str, Any]:
    address = None if row.at is None else place(row.at[0], slice=row.at[1])
    return {"name": row.name, "place": address, "panels": [_panel(panel) for panel in row.panels]}


def _panel(panel: Panel) -> dict[str, Any]:
    """A panel as the page shows it: `frame` is left, top, width and height in percent."""
    height, width = panel.size_mm
    frame = None if panel.frame is None else [f"{100 * share:.2f}" for share in panel.frame]
    return {
        "uri": data_uri(panel.pixels()),
        "aspect": f"{width:.6g} / {height:.6g}",
        "note": panel.note,
        "frame": frame,
    }


def shared_folder(folders: Sequence[Path]) -> Path:
    """The one folder of prepared volumes of several runs.

    Raises:
        UserError: they have several.
    """
    found = list(dict.fromkeys(folders))
    if len(found) != 1:
        raise UserError("the arms were evaluated on volumes that were prepared differently.")
    return found[0]

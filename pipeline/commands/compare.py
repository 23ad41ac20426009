"""`hsam compare`: paired differences between runs on the same test cases.

Every run is compared with the first. Output: comparison.csv (every score) and a
plot of one score as PNG, SVG and PDF. Definitions: docs/evaluation.md.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core import files
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.reporting import plots
from pipeline.scoring.comparison import comparison
from pipeline.scoring.runs import longest_voxel_mm, read_runs, run_cautions
from pipeline.scoring.scores import SCORES, in_view
from pipeline.scoring.significance import SIGNIFICANT, smallest_p
from pipeline.scoring.tables import OVERALL


def run(
    folders: Sequence[Path], out: Path, *, names: Sequence[str] = (), score: str = "dice"
) -> None:
    """Compare two or more runs; write the table and the plot of `score`, print tables.

    Args:
        folders, names: see `runs.read_runs`.
        out: folder to write to; other files in it stay.
        score: one of `scores.SCORES`.

    Raises:
        UserError: fewer than two runs, an unknown score, or runs that can't be compared.
    """
    if score not in SCORES:
        raise UserError(f"--score: expected one of {', '.join(SCORES)}, got {score}.")
    if len(folders) < 2:
        raise UserError("compare: expected two runs or more.")
    runs = read_runs(folders, names)
    rows = comparison(runs)
    table = pd.DataFrame(rows)
    files.write_text(out / "comparison.csv", table.to_csv(index=False, lineterminator="\n"))
    shown = [row for row in rows if row["score"] == score]
    voxel = longest_voxel_mm(runs)
    plots.save(
        plots.difference_plot(shown, SCORES[score].marked(voxel)), out / f"comparison-{score}"
    )
    for compared in runs[1:]:
        for printed in in_view("comparison", voxel):
            key = (compared.name, printed.name)
            selected = [row for row in rows if (row["run"], row["score"]) == key]
            _print(selected, f"{printed.label}: {compared.name} minus {runs[0].name}")
    sentences = [_what_cases_can_show(len(runs[0].case_ids), len(runs[0].organs))]
    sentences += [f"warning: {text}" for text in run_cautions(runs)]
    for sentence in sentences:
        Console().print(Text(sentence), soft_wrap=True)
    say(f"compare: {out / 'comparison.csv'}, comparison-{score}.png, .svg and .pdf")


def _what_cases_can_show(cases: int, organs: int) -> str:
    """What so many cases can show at best, in a sentence."""
    best = smallest_p(cases)
    corrected = min(1.0, best * organs)
    text = (
        f"With {cases} case{'' if cases == 1 else 's'} p can't be below {best:.3g}, nor after "
        f"Holm's correction for {organs} organ{'' if organs == 1 else 's'} below {corrected:.3g}"
    )
    if best > SIGNIFICANT:
        text += f": so few can't show a difference at p <= {SIGNIFICANT:g}, however large it is"
    elif corrected > SIGNIFICANT:
        text += f": no single organ's difference can be shown at p <= {SIGNIFICANT:g}"
    return f"{text}."


def _print(rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Print the rows of one run and score, one an organ."""
    # Text, since names may look like markup
    table = Table(title=Text(title), title_justify="left")
    table.add_column("organ")
    for name in ("difference", "95% interval or values", "p", "p, Holm", "cases"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        interval = row["values"] or "–"
        if row["low"] is not None:
            interval = f"{row['low']:+.3f} to {row['high']:+.3f}"
        overall = row["organ"] == OVERALL
        if overall:
            table.add_section()
        table.add_row(
            Text(row["organ"]),
            "–" if row["difference"] is None else f"{row['difference']:+.3f}",
            interval,
            _p(row["p"]),
            "" if overall else _p(row["p_holm"]),
            str(row["cases"]),
            style="bold" if overall else None,
        )
    Console().print(table)


def _p(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"

"""`hsam study`: the runs of a study, how far it is, what is left, and its tables."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from pipeline.core import cpus
from pipeline.core import files as core_files
from pipeline.core.console import duration, say, table_console
from pipeline.core.errors import UserError
from pipeline.studies import files, plan, progress
from pipeline.studies.plan import Study

if TYPE_CHECKING:
    from pipeline.scoring.sheet import Sheet

NONE = "–"  # of an arm that is never trained


def show(name: str | None, on: tuple[str, ...], results: Path) -> None:
    """Print the plan of a study, or the names of all studies.

    Args:
        name: of a study or a collection; None: all are listed.
        on: what it is run on.
        results: folder of the stages' outputs.

    Raises:
        UserError: no such study, or one that can't be run so.
    """
    if name is None:
        _list()
        return
    studies = plan.load(name, on)
    console = table_console()
    for study in studies:
        console.print(f"{study.folder}: {study.file.title}", highlight=False)
        if study.file.question:
            console.print(f"  {study.file.question}", highlight=False)
        console.print(_arms(study, results))
    _summary(name, on, studies, results)


def show_tables(name: str | None, on: tuple[str, ...], results: Path) -> None:
    """Print the tables of a study, or of the studies of a collection, as far as they go.

    Args, raises: as for `show`; a study has to be named.
    """
    if name is None:
        raise UserError(f"--table: of which study? There are {', '.join(files.names())}.")
    # pandas and SciPy, which the plan does without
    from pipeline.studies.outcomes import outcomes
    from pipeline.studies.sheets import sheets
    from pipeline.studies.tables import tables

    console = table_console()
    for study in plan.load(name, on):
        found = outcomes((study,), results)
        for sheet in sheets(tables(study, found)):
            console.print(_printed(sheet))
            for note in sheet.notes:
                console.print(Text(note))
            console.print()


def _printed(sheet: "Sheet") -> Table:
    # Text, since names may look like markup
    table = Table(title=Text(sheet.title), title_justify="left")
    for place, name in enumerate(sheet.header):
        table.add_column(Text(name), justify="left" if sheet.is_left(place) else "right")
    for place, row in enumerate(sheet.rows):
        if place in sheet.sections:
            table.add_section()
        table.add_row(*map(Text, row))
    return table


def write_report(name: str | None, on: tuple[str, ...], results: Path, out: Path) -> None:
    """Write the page of a study, and its tables, as far as its runs are finished.

    Args:
        name, on, results: as for `show`; a study has to be named.
        out: the page's file; the tables lie in `tables` of the study's folder of results, of a
            collection in a folder there for each of its studies.

    Raises:
        UserError: no such study, one that can't be run so, or none of its runs is finished.
    """
    if name is None:
        raise UserError(f"--report {out}: of which study? There are {', '.join(files.names())}.")
    # matplotlib, pandas and SciPy, which the plan does without
    from pipeline.reporting import study_page
    from pipeline.studies import writers

    found = study_page.read(name, on, results)
    html = study_page.render(found)
    whole = results / plan.folder_of(name, on) / writers.FOLDER
    for part in found.parts:
        folder = writers.folder_of(part.study, results)
        writers.write(part.tables, whole / part.study.name if found.is_collection else folder)
    core_files.write_text(out, html)
    say(f"study: {out}")


def _list() -> None:
    for name in files.names():
        print(f"{name:16}{files.read(name).title}")
    print("hsam study NAME shows one; snakemake reports/NAME.html runs it")


def _arms(study: Study, results: Path) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 2))
    folds = ("folds",) if study.folds else ()
    for column in ("arm", "draws", "seeds", *folds, "runs", "trained", "done"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm in study.file.arms:
        runs = [run for run in study.runs if run.arm == arm]
        draws, seeds = {run.draw for run in runs}, {run.seed for run in runs}
        trained: str | int = NONE
        if all(run.predictions is None for run in runs):
            trained = sum(progress.is_done(run, results, "train") for run in runs)
        done = sum(progress.is_done(run, results) for run in runs)
        of_folds = (study.folds,) if study.folds else ()
        counts = (len(draws), len(seeds), *of_folds, len(runs), trained, done)
        table.add_row(arm, *map(str, counts))
    return table


def _summary(name: str, on: Sequence[str], studies: Sequence[Study], results: Path) -> None:
    runs = [run for study in studies for run in study.runs]
    done = sum(progress.is_done(run, results) for run in runs)
    left = progress.left(runs, results)
    time = "unknown before the first" if left.seconds is None else duration(left.seconds)
    disk = "unknown before the first" if left.bytes is None else f"{left.bytes / 2**20:,.0f} MiB"
    print(f"{len(runs)} runs, {done} done; trainings left: {left.runs}")
    print(f"left, estimated: device time {time}, disk {disk}")
    waiting = [run for run in runs if run.predictions and not run.predictions.is_dir()]
    for run in waiting:
        print(f"{run.name}: waits for predictions in {run.predictions} (docs/rivals.md)")
    if done < len(runs) - len(waiting):
        argument = f" --config on={','.join(on)}" if on else ""
        print(f"next: snakemake --cores {cpus.usable()}{argument} -- reports/{name}.html")

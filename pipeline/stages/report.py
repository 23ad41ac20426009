"""Stage report: a whole run on one HTML page, and its table of scores for the terminal.

Inputs: manifest and shards (prepare), the split, trials.csv and best.yaml (search), history.csv
and model.json (train), scores and predictions (evaluate), each stage's provenance.json; scores and
predictions of a run to show beside, where `report.beside` names one.
Output: report.html, which needs nothing beside it and is the same for the same inputs, to the
byte: of times it holds those of training and evaluation alone, and no host and no absolute path.
"""

import shutil
from pathlib import Path

from rich.console import Console
from rich.text import Text

from pipeline import datasets
from pipeline.core import files, run_folder, sources
from pipeline.core.console import say
from pipeline.core.params.blocks import Params, stage_params
from pipeline.reporting import layout
from pipeline.reporting.beside import read_beside
from pipeline.reporting.browser import browser
from pipeline.reporting.inputs import ReportFolders, read_inputs
from pipeline.reporting.page import page
from pipeline.reporting.pictures import test_pictures
from pipeline.reporting.recorded import check_given, recorded_params
from pipeline.scoring.metrics_file import METRICS, read_metrics
from pipeline.scoring.tables import print_scores

TEMPLATE, REPORT = "report.html.j2", "report.html"
SCRIPTS = ("plots.js", "browser.js")
PARTS = (TEMPLATE, "browser.html.j2", *SCRIPTS)


def run(
    params: Params, folders: ReportFolders, out: Path, runs: Path, *, other_run: bool = False
) -> Params:
    """Write the report unless it was done before; then put it at `out / "report.html"`.

    Args:
        params: all parameters; `report` is read, the others are compared with the stages' own.
        folders: published folders of the stages.
        out: folder of the report; other files in it stay.
        runs: folder of the run folders.
        other_run: the model is of a run that was named, whose training may have had other
            parameters than the given ones.

    Returns:
        The parameters that the stages were run with.

    Raises:
        UserError: inputs that are missing or don't belong together, or that were made with other
            parameters; a run to show beside that there isn't or that can't be compared.
    """
    hashes, beside = folders.hashes() | layout.hashes(*PARTS), None
    if (given := params.report.beside) is not None:
        beside = read_beside(given, runs, folders.prepare, folders.evaluate)
        hashes |= beside.hashes()
    inputs = read_inputs(folders)
    hashes["title"] = title = datasets.title(params.dataset, inputs.manifest.name)
    check_given(params, inputs.provenance, ["evaluate"] if other_run else ["train", "evaluate"])
    made_with = recorded_params(params, inputs.provenance)  # refused before the page is written
    key = stage_params(params, "report")
    choice = sources.data_set(inputs.manifest.name)
    with run_folder.open_run(runs, inputs.manifest.name, "report", key, hashes, choice) as work:
        if work.is_done():
            say(f"report: already done in {work.path}")
        else:
            shown = browser(folders, inputs, params.report.budget_mib, beside)
            content = page(inputs, shown, title, beside)
            content["pictures"] = test_pictures(folders, inputs, params.report.slices)
            files.write_text(work.out / REPORT, render(content))
            work.finish()
        # the file alone, not its folder, in which users may keep other files
        with files.atomic_path(out / REPORT) as temporary:
            shutil.copyfile(work.out / REPORT, temporary)
    say(f"report: {out / REPORT}")
    return made_with


def render(content: dict) -> str:
    """The page's HTML.

    Args:
        content: the template's values: those of `page.page`, and `pictures`.
    """
    return layout.render(TEMPLATE, content, SCRIPTS)


def print_summary(evaluate: Path, report: Path) -> None:
    """Print the scores of each organ and the report's path.

    Args:
        evaluate: published folder of the evaluate stage.
        report: the report's file.

    Raises:
        UserError: there are no scores yet, or they are damaged.
    """
    scores = read_metrics(evaluate / METRICS)
    print_scores(scores, f"test cases: {scores['cases']}")
    Console().print(Text(f"report: {report}"), soft_wrap=True)

"""Scores, studies and figures."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.given import arm_of_predictions, params_and_places, scored
from pipeline.cli.help import SCORES
from pipeline.cli.options import (
    PARAMS,
    REPORTS,
    RESULTS,
    RUNS,
    Convention,
    FigureMarks,
    FigureStyle,
    JobsOption,
    NamesOption,
    OnOption,
    PageOption,
    ParamsOption,
    PublishedOption,
    ResultsOption,
    RunsArgument,
    RunsOption,
    ScoreName,
    ScoreOption,
    StudyOption,
    output_folder,
    writable_folder,
)
from pipeline.cli.stages import search
from pipeline.core.errors import UserError


@command(SCORES, "study", "hsam study table10 --on phantoms")
def study(
    name: Annotated[
        str | None,
        typer.Argument(metavar="STUDY", help="Of workflow/studies; none: all are listed."),
    ] = None,
    on: OnOption = None,
    table: Annotated[
        bool, typer.Option("--table", help="Its tables, as far as they go, instead of the plan.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write its page here, its tables beside its results."),
    ] = None,
    results: PublishedOption = RESULTS,
) -> None:
    """Show a study: its arms and runs, what is done, what is left; its tables; its page."""
    from pipeline.commands import study as studies
    from pipeline.studies import plan

    used = plan.parse_on(on)
    if report is not None:
        studies.write_report(name, used, results, report)
    if table:
        studies.show_tables(name, used, results)
    if report is None and not table:
        studies.show(name, used, results)


@command(SCORES, "record", "hsam record table10/rank-4/draw-1-seed-2")
def record(
    study: Annotated[
        list[str],
        typer.Argument(metavar="STUDY/ARM/draw-D-seed-S", help="Finished runs of studies."),
    ],
    on: OnOption = None,
    results: ResultsOption = RESULTS,
    runs: RunsOption = RUNS,
) -> None:
    """Add runs of studies to `dvc exp show`, with outputs that `dvc exp apply` restores."""
    from pipeline.commands import record as recording
    from pipeline.studies import plan

    chosen = [plan.find(name, plan.parse_on(on)) for name in study]
    if scored := [
        name for name, run in zip(study, chosen, strict=True) if run.predictions is not None
    ]:
        raise UserError(f"{scored[0]}: only trainings are experiments of DVC; leave it out.")
    for name, run in zip(study, chosen, strict=True):
        if not run.params.search.trials and not run.places(results)["search"].is_dir():
            # DVC's road has the stage, which then takes no trial
            search(gpus=0, results=results, runs=runs, study=name, on=on)
    recording.run(chosen, plan.parse_on(on), results)


@command(
    SCORES,
    "score",
    "hsam score --truth truth --prediction pred --labels dataset.json --out scores",
)
def score(
    prediction: Annotated[Path, typer.Option(metavar="FOLDER", help="Predicted label volumes.")],
    out: Annotated[Path, output_folder("For tables and metrics.json.")],
    truth: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="True label volumes.",
            show_default="those of nnU-Net's summary.json",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Organs' labels: params.yaml, model.json, dataset.json, or a mapping.",
            show_default="the dataset.json of the predictions, or of the truth",
        ),
    ] = None,
    prediction_labels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The same of the predictions, where they differ."),
    ] = None,
    convention: Annotated[
        Convention, typer.Option(help="How empty organs count in the headline.")
    ] = Convention("strict"),
    truth_name: Annotated[
        str, typer.Option(metavar="PATTERN", help="Names of true volumes, such as label{case}.")
    ] = "{case}",
    prediction_name: Annotated[
        str,
        typer.Option(
            metavar="PATTERN",
            help="Names of predicted ones: {case}/{case}_seg, {case}/{organ}, ...",
        ),
    ] = "{case}",
    case: Annotated[
        list[str] | None,
        typer.Option(metavar="CASE", help="Score this case only; may be given again."),
    ] = None,
    jobs: JobsOption = 1,
) -> None:
    """Score label volumes of any tool against the truth."""
    from pipeline.commands import score as scoring

    scoring.run(
        truth,
        prediction,
        labels,
        out,
        prediction_labels=prediction_labels,
        convention=str(convention),
        names=(truth_name, prediction_name),
        cases=case or (),
        jobs=jobs,
    )


@command(SCORES, "export-nnunet", "hsam export-nnunet nnunet --id 501")
def export_nnunet(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER", help="Of nnU-Net's three folders.", callback=writable_folder
        ),
    ],
    params: ParamsOption = PARAMS,
    id: Annotated[
        int, typer.Option(metavar="N", min=1, max=999, help="nnU-Net's number of the data set.")
    ] = 501,
    jobs: JobsOption = 1,
    results: PublishedOption = RESULTS,
    study: StudyOption = None,
    on: OnOption = None,
) -> None:
    """Write prepared cases and their split as nnU-Net's raw data.

    Slices without labels carry nnU-Net's ignore label.
    """
    from pipeline.commands import export_nnunet as exporting

    used, place = params_and_places(params, study, on, results)
    arm = None if study is None else arm_of_predictions(study, on)
    exporting.run(used, place["prepare"], place["split"], out, number=id, jobs=jobs, arm=arm)


@command(SCORES, "compare", "hsam compare runs/a runs/b --name adapter --name full")
def compare(
    runs: RunsArgument,
    name: NamesOption = None,
    score: ScoreOption = ScoreName("dice"),
    out: Annotated[Path, output_folder("For table and plot.")] = REPORTS / "comparison",
) -> None:
    """Compare runs with the first of them, case by case."""
    folders, names = scored(runs, name)
    from pipeline.commands import compare as comparing

    comparing.run(folders, out, names=names, score=str(score))


@command(SCORES, "figures", "hsam figures runs/a runs/b --slices 6")
def figures(
    runs: RunsArgument,
    name: NamesOption = None,
    prepared: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Prepared data that the runs were evaluated on.")
    ] = RESULTS / "prepare",
    slices: Annotated[
        int, typer.Option(metavar="N", min=1, max=50, help="Slices in each figure.")
    ] = 4,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Chooses the slices.")] = 0,
    width: Annotated[
        str,
        typer.Option(metavar="MM", help="Of each figure: single (85), double (180) or in mm."),
    ] = "double",
    font_size: Annotated[
        float,
        typer.Option(metavar="PT", min=4, max=24, help="Of all text, at that width."),
    ] = 7,
    style: Annotated[
        FigureStyle, typer.Option(metavar="NAME", help="Organs: fill, contour or both.")
    ] = "both",
    marks: Annotated[
        FigureMarks,
        typer.Option(
            metavar="NAME",
            help="Scale bar and the patient's sides: on the first panel of a row, all or none.",
        ),
    ] = "first",
    out: Annotated[Path, output_folder("For figures and tables.")] = REPORTS / "figures",
) -> None:
    """Draw the paper's figures of evaluated runs: PNG, SVG, PDF; tables: LaTeX, Markdown."""
    folders, names = scored(runs, name)
    from pipeline.commands import figures as paper_figures
    from pipeline.reporting.look import Look, parse_width

    look = Look(parse_width(width), font_size, style, marks)
    paper_figures.run(folders, prepared, out, names=names, slices=slices, seed=seed, look=look)


@command(SCORES, "summary", "hsam summary --results results")
def summary(results: PublishedOption = RESULTS, reports: PageOption = REPORTS) -> None:
    """Print the last run's Dice table and its report's path."""
    from pipeline.stages import report as stage

    stage.print_summary(results / "evaluate", reports / "report.html")

"""The stages, one after the other, as the engines call them."""

from functools import partial
from typing import Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.given import (
    check_searcher,
    leased_device,
    model_of,
    parameters,
    params_and_places,
    predictions_of,
)
from pipeline.cli.help import STAGES
from pipeline.cli.options import (
    PARAMS,
    REPORTS,
    RESULTS,
    RUNS,
    GpusOption,
    JobsOption,
    NameOption,
    OnOption,
    ParamsOption,
    PublishedOption,
    ReportsOption,
    ResultsOption,
    RunsOption,
    StudyOption,
    TrainedOption,
)
from pipeline.core import cpus
from pipeline.core.errors import UserError
from pipeline.core.installed import need


@command(STAGES, "prepare", "hsam prepare --jobs 4")
def prepare(
    params: ParamsOption = PARAMS,
    case: Annotated[
        str | None, typer.Option(metavar="CASE", help="Prepare this case only.")
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            metavar="FIRST-LAST",
            help="Prepare these cases only, by their places; the next `hsam prepare` finds them.",
        ),
    ] = None,
    jobs: JobsOption = cpus.usable(),
    results: ResultsOption = RESULTS,
    runs: RunsOption = RUNS,
    study: StudyOption = None,
    on: OnOption = None,
) -> None:
    """Write raw volumes as parquet shards, with a manifest."""
    from pipeline.stages import prepare as stage

    used, place = params_and_places(params, study, on, results)
    if case is not None and batch is not None:
        raise UserError(f"--case {case}, --batch {batch}: give one of them.")
    stage.run(used, place["prepare"], runs, case=case, batch=batch, jobs=jobs)


@command(STAGES, "split", "hsam split --params params.yaml --params workflow/presets/la-4.yaml")
def split(
    params: ParamsOption = PARAMS,
    results: ResultsOption = RESULTS,
    runs: RunsOption = RUNS,
    study: StudyOption = None,
    on: OnOption = None,
) -> None:
    """Give slices roles: train, validation, test or unused."""
    from pipeline.stages import split as stage

    used, place = params_and_places(params, study, on, results)
    stage.run(used, place["prepare"], place["split"], runs)


@command(STAGES, "search", "hsam search --gpus 1 --workers 2")
def search(
    params: ParamsOption = PARAMS,
    gpus: GpusOption = 1,
    workers: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="Processes that share the trials, each with --gpus."),
    ] = 1,
    worker: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER", min=1, help="Be one of several workers; publish nothing at the end."
        ),
    ] = None,
    results: ResultsOption = RESULTS,
    runs: RunsOption = RUNS,
    study: StudyOption = None,
    on: OnOption = None,
) -> None:
    """Search the training's parameters with Optuna."""
    from pipeline.stages import search as stage

    need(("lightning_fabric", "optuna"), "pipeline", "hsam search")
    used, place = params_and_places(params, study, on, results, trains=True)
    check_searcher(study, on)
    inputs, device = (used, place["prepare"], place["split"]), partial(leased_device, gpus)
    if worker is None:
        stage.run(*inputs, place["search"], runs, device=device, workers=workers)
    else:
        stage.run_worker(*inputs, runs, device=device, worker=worker)


@command(STAGES, "train", "hsam train --params params.yaml --gpus 1")
def train(
    params: ParamsOption = PARAMS,
    gpus: GpusOption = 1,
    results: ResultsOption = RESULTS,
    runs: RunsOption = RUNS,
    study: StudyOption = None,
    on: OnOption = None,
    name: NameOption = None,
) -> None:
    """Train the model; an interrupted training goes on."""
    need(("lightning_fabric", "dvclive"), "pipeline", "hsam train")
    if name is not None:
        from pipeline.core import run_names

        run_names.check(name)
    from pipeline import datasets
    from pipeline.stages import train as stage

    used, place = params_and_places(params, study, on, results, trains=True)
    stage.run(
        used,
        place["prepare"],
        place["split"],
        place["search"],
        place["train"],
        runs,
        device=partial(leased_device, gpus),
        name=name,
        title=datasets.title(used.dataset),
    )


@command(STAGES, "evaluate", "hsam evaluate --run runs/published")
def evaluate(
    params: ParamsOption = PARAMS,
    gpus: GpusOption = 1,
    results: ResultsOption = RESULTS,
    runs: RunsOption = RUNS,
    run: TrainedOption = None,
    study: StudyOption = None,
    on: OnOption = None,
) -> None:
    """Predict the test cases and score them, organ by organ."""
    used, place = params_and_places(params, study, on, results)
    if (predictions := predictions_of(study, on)) is not None:
        from pipeline.commands import score_predictions

        if run is not None:
            raise UserError(f"--run {run}: {study} scores predictions, no run; leave it out.")
        inputs = place["prepare"], place["split"], predictions, place["evaluate"]
        score_predictions.run(used, *inputs)
        return
    from pipeline.stages import evaluate as stage

    stage.run(
        used,
        place["prepare"],
        place["split"],
        place["train"] if run is None else model_of(run, runs),
        place["evaluate"],
        runs,
        device=partial(leased_device, gpus),
    )


@command(STAGES, "report", "hsam report --reports reports")
def report(
    params: ParamsOption = PARAMS,
    results: PublishedOption = RESULTS,
    runs: RunsOption = RUNS,
    reports: ReportsOption = REPORTS,
    run: TrainedOption = None,
    beside: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Another run to show beside: its name, or a folder of `hsam evaluate`.",
            show_default="report.beside",
        ),
    ] = None,
) -> None:
    """Write the HTML report and add a row to `dvc exp show`."""
    from pipeline.reporting.inputs import ReportFolders
    from pipeline.stages import report as stage
    from pipeline.versioning import experiments

    model = None
    if run is not None:
        from pipeline.inference import records

        model = records.model_folder(model_of(run, runs))
    folders = ReportFolders.find(results, model)
    given = parameters(params)
    if beside is not None:
        block = given.report.model_copy(update={"beside": beside})
        given = given.model_copy(update={"report": block})
    used = stage.run(given, folders, reports, runs, other_run=run is not None)
    experiments.record_run(used, folders.stages(), reports / stage.REPORT)

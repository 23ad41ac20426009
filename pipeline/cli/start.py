"""From scans to a model: `hsam init`, `hsam run`."""

import inspect
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.command import app, command
from pipeline.cli.given import parameters
from pipeline.cli.help import STAGES, START
from pipeline.cli.house import phantom
from pipeline.cli.options import (
    PARAMS,
    REPORTS,
    RESULTS,
    RUNS,
    GpusOption,
    JobsOption,
    NameOption,
    ParamsArgument,
    ReportsOption,
    ResultsOption,
    RunsOption,
    output_file,
)
from pipeline.cli.scores import summary
from pipeline.core import cpus
from pipeline.core.installed import need

if TYPE_CHECKING:
    from pipeline.core.params.blocks import Params


@command(START, "init", "hsam init data/raw/Dataset009_Spleen --out spleen.yaml")
def init(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="Of one data set: scans and their labels."),
    ],
    out: Annotated[Path, output_file("Parameter file to write.")] = Path("my.yaml"),
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="litemedsam, vit_b or unet.",
            show_default="by the data, and by what `hsam weights` finds",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Of the training.", show_default="minutes on this machine"
        ),
    ] = None,
    fold: Annotated[
        int,
        typer.Option(metavar="K", min=0, help="Tested on: a fold of nnU-Net's splits_final.json."),
    ] = 0,
    channels: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Of scans with several: up to three, such as T2,ADC.",
            show_default="all of two or three",
        ),
    ] = None,
    gpus: GpusOption = 1,
    jobs: JobsOption = cpus.usable(),
    as_json: Annotated[
        bool, typer.Option("--json", help="Print choices, reasons and fingerprints as JSON.")
    ] = False,
) -> None:
    """Look at a folder of scans and write a parameter file for it, with reasons."""
    from pipeline.commands import init as planning
    from pipeline.core import gpu

    planning.run(
        folder,
        out,
        gpus=min(gpus, gpu.visible()),
        encoder=encoder,
        steps=steps,
        fold=fold,
        channels=channels,
        jobs=jobs,
        as_json=as_json,
    )


@command(START, "run", "hsam run my.yaml")
def run_stages(
    params: ParamsArgument = PARAMS,
    gpus: GpusOption = 1,
    jobs: JobsOption = cpus.usable(),
    results: ResultsOption = RESULTS,
    runs: RunsOption = RUNS,
    reports: ReportsOption = REPORTS,
    name: NameOption = None,
) -> None:
    """Run all stages in their order, without Snakemake or DVC; what is done stays done.

    The commands, folders and results are those of the two engines.
    """
    from pipeline.core.console import say

    need(("lightning_fabric", "dvclive", "optuna"), "pipeline", "hsam run")
    used = parameters(params)
    _refuse_early(used)
    given = {"params": params, "gpus": gpus, "jobs": jobs, "workers": used.search.workers}
    given |= {"results": results, "runs": runs, "reports": reports, "name": name}
    stages = [command for command in app.registered_commands if command.rich_help_panel == STAGES]
    for place, stage in enumerate(stages, 1):
        assert stage.callback is not None
        say(f"run: {stage.name}, {place} of {len(stages)}")
        takes = inspect.signature(stage.callback).parameters
        stage.callback(**{name: value for name, value in given.items() if name in takes})
    summary(results, reports)
    model = shlex.quote(str(results / "train"))
    say(f"next: hsam predict SCAN --run {model} --out predictions --overlay")


def _refuse_early(params: "Params") -> None:
    """Say before the first stage what a later one would refuse; make the phantoms that it needs."""
    from pipeline import datasets
    from pipeline.core import weight_files

    datasets.check_split(params)
    if (weights := weight_files.chosen(params.train)) is not None:
        weight_files.checked_sha256(weights, params.train.backbone)
    data = params.dataset
    if data.name == "phantom" and datasets.get(data).list_cases(data).problems:
        phantom(Path(data.root), data.phantom.cases, data.phantom.seed, data.phantom.size)

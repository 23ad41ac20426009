"""The commands, in the groups in which `hsam --help` lists them."""

import inspect
import os
import shlex
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.help import Command, Groups
from pipeline.cli.options import (
    PARAMS,
    REPORTS,
    RESULTS,
    RUNS,
    WEIGHTS,
    CheckpointOption,
    Convention,
    Device,
    ExportFormat,
    FigureMarks,
    FigureStyle,
    FoundRunsOption,
    GpusOption,
    JobsOption,
    LabelFormat,
    NameOption,
    NamesOption,
    OnOption,
    PageOption,
    ParamsArgument,
    ParamsOption,
    PublishedOption,
    ReportsOption,
    ResultsOption,
    RunOption,
    RunsArgument,
    RunsOption,
    ScoreName,
    ScoreOption,
    Stage,
    StudyOption,
    TrainedOption,
    output_file,
    output_folder,
    writable_folder,
)
from pipeline.core import cpus
from pipeline.core.errors import UserError
from pipeline.core.installed import need

if TYPE_CHECKING:
    from pipeline.core.params.blocks import Params

START = "From scans to a model"
STAGES, SCANS = "Stages, in their order", "Your own scans"
SCORES, HOUSE = "Scores and figures", "House-keeping"

RUN_STAGES = ("prepare", "split", "search", "train", "evaluate")

app = typer.Typer(
    cls=Groups,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _command(group: str, name: str, example: str) -> Callable[[Any], Any]:
    return app.command(name, cls=Command, rich_help_panel=group, epilog=example)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hsam {metadata.version('hsam')}")
        raise typer.Exit


@app.callback()
def hsam(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """H-SAM: from raw medical volumes to a segmentation model and a report."""


@_command(START, "init", "hsam init data/raw/Dataset009_Spleen --out spleen.yaml")
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


@_command(START, "run", "hsam run my.yaml")
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
    used = _load(params)
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


@_command(STAGES, "prepare", "hsam prepare --jobs 4")
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

    used, place = _work(params, study, on, results)
    if case is not None and batch is not None:
        raise UserError(f"--case {case}, --batch {batch}: give one of them.")
    stage.run(used, place["prepare"], runs, case=case, batch=batch, jobs=jobs)


@_command(STAGES, "split", "hsam split --params params.yaml --params workflow/presets/la-4.yaml")
def split(
    params: ParamsOption = PARAMS,
    results: ResultsOption = RESULTS,
    runs: RunsOption = RUNS,
    study: StudyOption = None,
    on: OnOption = None,
) -> None:
    """Give slices roles: train, validation, test or unused."""
    from pipeline.stages import split as stage

    used, place = _work(params, study, on, results)
    stage.run(used, place["prepare"], place["split"], runs)


@_command(STAGES, "search", "hsam search --gpus 1 --workers 2")
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
    used, place = _work(params, study, on, results, trains=True)
    _check_searcher(study, on)
    inputs, device = (used, place["prepare"], place["split"]), partial(_device, gpus)
    if worker is None:
        stage.run(*inputs, place["search"], runs, device=device, workers=workers)
    else:
        stage.run_worker(*inputs, runs, device=device, worker=worker)


@_command(STAGES, "train", "hsam train --params params.yaml --gpus 1")
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

    used, place = _work(params, study, on, results, trains=True)
    stage.run(
        used,
        place["prepare"],
        place["split"],
        place["search"],
        place["train"],
        runs,
        device=partial(_device, gpus),
        name=name,
        title=datasets.title(used.dataset),
    )


@_command(STAGES, "evaluate", "hsam evaluate --run runs/published")
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
    used, place = _work(params, study, on, results)
    if (predictions := _predictions(study, on)) is not None:
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
        place["train"] if run is None else _run(run, runs),
        place["evaluate"],
        runs,
        device=partial(_device, gpus),
    )


@_command(STAGES, "report", "hsam report --reports reports")
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

        model = records.model_folder(_run(run, runs))
    folders = ReportFolders.find(results, model)
    given = _load(params)
    if beside is not None:
        block = given.report.model_copy(update={"beside": beside})
        given = given.model_copy(update={"report": block})
    used = stage.run(given, folders, reports, runs, other_run=run is not None)
    experiments.record_run(used, folders.stages(), reports / stage.REPORT)


@_command(
    SCANS, "predict", "hsam predict scan.nii.gz --run results/train --out predictions --overlay"
)
def predict(
    scan: Annotated[
        list[Path],
        typer.Argument(
            metavar="SCAN",
            help="NIfTI, MetaImage, NRRD or HDF5 files, DICOM folders, folders of any.",
        ),
    ],
    run: RunOption,
    out: Annotated[Path, output_folder("For label maps and records.")],
    checkpoint: CheckpointOption = None,
    device: Annotated[
        Device, typer.Option(help="Where to compute; auto: a GPU where there is one.")
    ] = "auto",
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Slices per forward pass.")] = 16,
    stage: Annotated[Stage, typer.Option(help="Which decoder's answer.")] = "mean",
    tta: Annotated[
        bool, typer.Option("--tta", help="Average over small rotations and scales; 5 x the time.")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the probability of every class.")
    ] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also draw a picture of slices.")
    ] = False,
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="Also a DICOM Segmentation of a DICOM series.")
    ] = False,
    rtstruct: Annotated[
        bool, typer.Option("--rtstruct", help="Also an RT Structure Set of a DICOM series.")
    ] = False,
    secondary_capture: Annotated[
        bool,
        typer.Option(
            "--secondary-capture", help="Also a DICOM series of pictures, for viewers without SEG."
        ),
    ] = False,
    format: Annotated[
        LabelFormat | None,
        typer.Option(help="Of the label maps.", show_default="as the scan"),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="DICOM series by number, description or UID."),
    ] = None,
    case: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The scans are channels of this one, in their order."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON of the call and of all its scans.")
    ] = None,
) -> None:
    """Label your own scans, each on exactly its own grid."""
    folder = _run(run)
    chosen = "cpu" if device == "cpu" else _device(1)
    if device == "cuda" and chosen != "cuda":
        raise UserError("--device cuda: no GPU can be seen; use --device cpu.")
    from pipeline.commands import predict as predict_scans

    ending = None if format is None else f".{format}"
    wanted = predict_scans.Wanted(
        stage,
        tta,
        batch,
        probabilities,
        overlay,
        dicom_seg,
        rtstruct,
        secondary_capture,
        ending,
        series,
        report,
        case,
    )
    if not predict_scans.run(scan, folder, out, wanted, checkpoint, chosen):
        raise typer.Exit(1)


@_command(
    SCANS,
    "import-checkpoint",
    "hsam import-checkpoint --adapter epoch_299.pth \\\n"
    "    --preset synapse-10pct-published --out runs/published",
)
def import_checkpoint(
    adapter: Annotated[
        Path, typer.Option(metavar="FILE", help="Adapter file of the published H-SAM code.")
    ],
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="Preset that describes it: synapse-10pct, ...")
    ],
    out: Annotated[Path, output_folder("Run folder to make.")],
    sam: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Meta's SAM file that it was trained on.",
            show_default="the published one, where hsam weights finds it",
        ),
    ] = None,
    params: Annotated[
        list[Path] | None,
        typer.Option("--params", metavar="FILE", help="Parameters to lay over the preset."),
    ] = None,
    axes: Annotated[
        str | None,
        typer.Option(
            metavar="AXES",
            help="Directions in which its slices, rows and columns grow, such as SAL.",
            show_default="as the published code prepares the data",
        ),
    ] = None,
) -> None:
    """Turn a published checkpoint into a run folder."""
    from pipeline.commands import import_checkpoint as importing

    loaded = _load([importing.preset_file(preset), *(params or ())])
    importing.run(adapter, sam, loaded, out, axes)


@_command(SCANS, "export", "hsam export --run results/train --out exported --format onnx")
def export(
    run: RunOption,
    out: Annotated[Path, output_folder("For the model and its record.")],
    format: Annotated[ExportFormat, typer.Option(help="File format.")] = "onnx",
    stage: Annotated[Stage, typer.Option(help="Which decoder's logits it gives.")] = "mean",
    batch: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Slices that it takes at a time.",
            show_default="1; monai-bundle: 16, as hsam predict",
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
) -> None:
    """Write a run's model as a file for other programs, with a model card, or as a MONAI bundle.

    Its answers are compared with the run's before it is kept.
    """
    folder = _run(run)
    batch = batch or (16 if format == "monai-bundle" else 1)
    from pipeline.commands import export as exporting

    exporting.run(folder, out, format, stage, batch, checkpoint)


@_command(SCANS, "push", "hsam push results/train /mnt/shared/models/liver")
def push(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run's name (`hsam runs`), or its folder.")
    ],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="hf:OWNER/NAME, or a folder to make.")
    ],
    public: Annotated[
        bool, typer.Option("--public", help="A new repository on a hub is for everyone to read.")
    ] = False,
) -> None:
    """Hand a run's model on: to a Hugging Face hub or a shared disk.

    A hub wants a token in HF_TOKEN.
    """
    folder = _run(run)
    from pipeline.commands import push as pushing

    pushing.push(folder, target, public)


@_command(SCANS, "pull", "hsam pull /mnt/shared/models/liver")
def pull(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="hf:OWNER/NAME, hf:OWNER/NAME@REVISION, or a folder."
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="For --run.", show_default="as it is called there"),
    ] = None,
    runs: RunsOption = RUNS,
) -> None:
    """Get a model that somebody has pushed, check it, and make it a run."""
    from pipeline.commands import push as pushing

    pushing.pull(source, name, runs)


@_command(SCORES, "study", "hsam study table10 --on phantoms")
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


@_command(SCORES, "record", "hsam record table10/rank-4/draw-1-seed-2")
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


@_command(HOUSE, "runs", "hsam runs rm synapse-hsam-2")
def list_runs(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="rm RUN",
            help="rm RUN: remove runs and their evaluations; gc: remove what no run needs; "
            "name RUN NAME: give one another name; nothing: list all of them.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="List them for programs.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
    results: PublishedOption = RESULTS,
    runs: FoundRunsOption = RUNS,
    reports: PageOption = REPORTS,
) -> None:
    """List the trainings and imported models; name or remove them.

    What a process works in, and what is published, is never removed.
    """
    from pipeline.commands import runs as run_folders

    match words or []:
        case []:
            run_folders.show(runs, results, as_json)
        case ["rm", _, *_]:
            run_folders.remove([Path(word) for word in (words or [])[1:]], runs, results, yes)
        case ["gc"]:
            run_folders.clean(runs, results, reports, yes)
        case ["name", run, name]:
            run_folders.rename(Path(run), name, runs)
        case other:
            raise UserError(
                f"runs: expected rm RUN, gc, name RUN NAME or nothing, found {' '.join(other)}."
            )


@_command(
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


@_command(SCORES, "export-nnunet", "hsam export-nnunet nnunet --id 501")
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

    used, place = _work(params, study, on, results)
    arm = None if study is None else _arm_of_predictions(study, on)
    exporting.run(used, place["prepare"], place["split"], out, number=id, jobs=jobs, arm=arm)


@_command(SCORES, "compare", "hsam compare runs/a runs/b --name adapter --name full")
def compare(
    runs: RunsArgument,
    name: NamesOption = None,
    score: ScoreOption = ScoreName("dice"),
    out: Annotated[Path, output_folder("For table and plot.")] = REPORTS / "comparison",
) -> None:
    """Compare runs with the first of them, case by case."""
    folders, names = _scored(runs, name)
    from pipeline.commands import compare as comparing

    comparing.run(folders, out, names=names, score=str(score))


@_command(SCORES, "figures", "hsam figures runs/a runs/b --slices 6")
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
    folders, names = _scored(runs, name)
    from pipeline.commands import figures as paper_figures
    from pipeline.reporting.look import Look, parse_width

    look = Look(parse_width(width), font_size, style, marks)
    paper_figures.run(folders, prepared, out, names=names, slices=slices, seed=seed, look=look)


@_command(SCORES, "summary", "hsam summary --results results")
def summary(results: PublishedOption = RESULTS, reports: PageOption = REPORTS) -> None:
    """Print the last run's Dice table and its report's path."""
    from pipeline.stages import report as stage

    stage.print_summary(results / "evaluate", reports / "report.html")


@_command(HOUSE, "new", "hsam new my-project --preset la-4")
def new(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="To make, or to add to.")],
    preset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="For its params.yaml: presets or parameter files."),
    ] = None,
) -> None:
    """Lay out a project, ready for snakemake and dvc."""
    from pipeline.commands import new as project
    from pipeline.studies import plan
    from pipeline.studies.files import preset_file

    project.run(folder, _load([preset_file(name) for name in plan.parse_on(preset)]))


@_command(HOUSE, "check", "hsam check --jobs 4 --out fingerprints.csv")
def check(
    params: ParamsOption = PARAMS,
    jobs: JobsOption = 1,
    out: Annotated[
        Path | None,
        output_file("Also write all of it, as .csv or .json."),
    ] = None,
) -> None:
    """Validate raw volumes; print each case's fingerprint."""
    from pipeline.datasets import check as checks

    checks.run(_load(params), jobs, out)


@_command(HOUSE, "params", "hsam params --params my.yaml --write params.yaml")
def show_params(
    params: ParamsOption = PARAMS,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
    write: Annotated[
        Path | None,
        output_file("Write here, with comments, instead of printing."),
    ] = None,
) -> None:
    """Check parameters; print them with each key's meaning.

    Without a file, the defaults.
    """
    from pipeline.core.params.render import render, schema_text

    nothing = params == PARAMS and not PARAMS[0].exists()
    text = schema_text() if schema else render(_load([] if nothing else params))
    if write is None:
        typer.echo(text, nl=False)
    else:
        from pipeline.core import files

        files.write_text(write, text)


@_command(HOUSE, "weights", "hsam weights get vit_b")
def weights(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="get NAME", help="Download the file of an encoder; nothing: list all of them."
        ),
    ] = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Folder, or file, that has it: https, http, file.",
            show_default="where it was published",
        ),
    ] = None,
    to: Annotated[Path, output_folder("Where to download to.")] = WEIGHTS,
) -> None:
    """List the known files of weights, or download one.

    An interrupted download goes on where it was.
    """
    from pipeline.commands import weights as files

    match words or []:
        case []:
            files.show()
        case ["get", first, *others]:
            files.get([first, *others], mirror, to)
        case other:
            raise UserError(
                f"weights: expected get and names of encoders, found {' '.join(other)}."
            )


@_command(HOUSE, "info", "hsam info --json")
def info(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what there is: models, encoders, weights, devices."""
    from pipeline.commands import info as facts

    facts.run(as_json)


@_command(HOUSE, "doctor", "hsam doctor")
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    results: PublishedOption = RESULTS,
    runs: FoundRunsOption = RUNS,
) -> None:
    """Look for what is wrong with this installation and machine.

    A line a check: ok, note (only some work needs it) or problem, and what to do. Exits with 1 if
    there is a problem.
    """
    from pipeline.commands import doctor as checks

    if not checks.run([results, runs], as_json):
        raise typer.Exit(1)


@_command(HOUSE, "phantom", "hsam phantom --out data/raw/phantom --cases 20")
def phantom(
    out: Annotated[Path, output_folder("To fill, in the layout of Synapse.")],
    cases: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Volumes to make.")] = 20,
    seed: Annotated[
        int, typer.Option(metavar="N", min=0, help="Seeds the anatomy and the noise.")
    ] = 1,
    size: Annotated[
        int, typer.Option(metavar="N", min=32, max=512, help="In-plane side, voxels.")
    ] = 128,
) -> None:
    """Make the phantom data: CT volumes with eight organs."""
    from pipeline.stages import phantom as stage

    stage.run(out, cases, seed, size)


def _load(paths: list[Path]) -> "Params":
    from pipeline.core.params.load import load
    from pipeline.core.params.render import restore_comments

    # DVC composes params.yaml without its comments; only then is it ours to mend
    if os.environ.get("DVC_EXP_NAME") and PARAMS[0] in paths:
        try:
            restore_comments(PARAMS[0])
        except UserError as error:
            raise UserError(
                [
                    *error.problems,
                    "params.yaml: `dvc exp run` has written these values into it, without the "
                    "comments; `git checkout params.yaml` brings back what was committed.",
                ]
            ) from None
    if paths == PARAMS and not PARAMS[0].exists():
        raise UserError(
            "params.yaml: there is no such file in this folder; `hsam params --write params.yaml` "
            "makes one, --params names another."
        )
    return load(paths)


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


def _work(
    params: list[Path],
    study: str | None,
    on: list[str] | None,
    results: Path,
    *,
    trains: bool = False,
) -> "tuple[Params, dict[str, Path]]":
    """The parameters of a stage's command, and the folder of each stage's outputs.

    `trains`: whether the stage is one that a run of predictions has not.
    """
    if study is None:
        if on:
            raise UserError(f"--on {' '.join(on)}: is for a run of a study; name it with --study.")
        return _load(params), {name: results / name for name in RUN_STAGES}
    if params != PARAMS:
        raise UserError("--params: a study has its own parameters; give --params or --study.")
    from pipeline.studies import plan

    run = plan.find(study, plan.parse_on(on))
    if trains and run.predictions is not None:
        raise UserError(
            f"--study {study}: the arm is scored from {run.predictions} and never trained; "
            f"hsam evaluate --study {study} scores it."
        )
    return run.params, run.places(results)


def _predictions(study: str | None, on: list[str] | None) -> Path | None:
    """The folder that a study's run scores; None where it is trained."""
    if study is None:
        return None
    from pipeline.studies import plan

    return plan.find(study, plan.parse_on(on)).predictions


def _arm_of_predictions(study: str, on: list[str] | None) -> tuple[Path, str] | None:
    """Where a study looks for predictions of a run's draw and fold, and the command that scores
    them.
    """
    from pipeline.studies import plan

    name, used = study.partition("/")[0], plan.parse_on(on)
    asked = plan.find(study, used)
    runs = [run for part in plan.load(name, used) for run in part.runs]
    for run in runs:
        if run.predictions is not None and (run.draw, run.fold) == (asked.draw, asked.fold):
            words = ["hsam", "evaluate", "--study", f"{name}/{run.name}"]
            for preset in used:
                words += ["--on", preset]
            return run.predictions, shlex.join(words)
    return None


def _check_searcher(study: str | None, on: list[str] | None) -> None:
    """Refuse the search of a run that takes another's."""
    if study is None:
        return
    from pipeline.studies import plan

    run = plan.find(study, plan.parse_on(on))
    if run.search_name != run.name:
        name = f"{study.partition('/')[0]}/{run.search_name}"
        raise UserError(
            f"--study {study}: an arm searches once for all its seeds; hsam search --study {name} "
            "does."
        )


def _device(gpus: int) -> str:
    """Lease GPUs before PyTorch looks for them; the device to work on."""
    from pipeline.core import gpu

    return "cuda" if gpu.lease(gpus) else "cpu"


def _run(given: Path, runs: Path = RUNS) -> Path:
    """The folder of the model that a name or folder means."""
    from pipeline.core import trainings

    return trainings.find_model(given, runs)


def _scored(given: list[Path], names: list[str] | None) -> tuple[list[Path], list[str]]:
    """The folders of scores that names or folders mean, and what tables call them."""
    from pipeline.core import trainings

    folders = [trainings.find_scores(run, RUNS) for run in given]
    called = [] if all(run.is_dir() for run in given) else [str(run) for run in given]
    return folders, names or called

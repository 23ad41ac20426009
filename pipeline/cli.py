"""The `hsam` command: one subcommand a stage, and a few for people.

Stages are imported when they are called, so that `hsam --help` and the light stages start at once.
"""

import os
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.core.errors import Stopped, UserError
from pipeline.core.params.blocks import Convention, Params
from pipeline.core.params.load import load
from pipeline.core.params.render import render, restore_comments, schema_text

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="H-SAM: from raw medical volumes to a segmentation model and a report.",
)

ParamsOption = Annotated[
    list[Path],
    typer.Option(
        "--params",
        help="Parameter files, whole or partial: each is laid over the ones before it, the first "
        "over the packaged defaults.",
    ),
]
ResultsOption = Annotated[Path, typer.Option("--results", help="Folder of the stages' outputs.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of the stages' working folders.")]
GpusOption = Annotated[
    int, typer.Option("--gpus", min=0, help="GPUs to lease; 0, or none there: the CPU.")
]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, help="Processes.")]
PARAMS = [Path("params.yaml")]
RESULTS, RUNS, REPORTS = Path("results"), Path("runs"), Path("reports")
ExportFormat = StrEnum("ExportFormat", {"onnx": "onnx", "torch_export": "torch-export"})
TrainedOption = Annotated[
    Path | None, typer.Option("--run", help="Run folder of the model; default: results/train.")
]
CheckpointOption = Annotated[
    Path | None, typer.Option(help="SAM's file of the run; default: the one it recorded.")
]
Device = StrEnum("Device", ["auto", "cpu", "cuda"])
Stage = StrEnum("Stage", ["mean", "coarse", "fine"])
LabelFormat = StrEnum(
    "LabelFormat", {"nii_gz": "nii.gz", "nii": "nii", "mha": "mha", "nrrd": "nrrd"}
)


@app.command()
def phantom(
    out: Annotated[Path, typer.Option(help="Folder to fill, in the layout of Synapse.")],
    cases: Annotated[int, typer.Option(min=1, max=1000, help="Volumes to make.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seeds the anatomy and the noise.")] = 1,
    size: Annotated[int, typer.Option(min=32, max=512, help="In-plane side, voxels.")] = 128,
) -> None:
    """Make the phantom data set: abdominal CT volumes with eight organs."""
    from pipeline.stages import phantom as stage

    stage.run(out, cases, seed, size)


@app.command()
def check(params: ParamsOption = PARAMS, jobs: JobsOption = 1) -> None:
    """Validate the raw volumes of a data set and print a fingerprint of each case."""
    from pipeline.datasets import check as checks

    report = checks.check_data_set(_load(params), jobs=jobs)
    report.print()
    if report.problems:
        raise UserError(report.problems)


@app.command()
def prepare(
    params: ParamsOption = PARAMS,
    case: Annotated[str | None, typer.Option(help="Prepare this case only.")] = None,
    jobs: JobsOption = len(os.sched_getaffinity(0)),
    results: ResultsOption = RESULTS,
    runs: RunsOption = RUNS,
) -> None:
    """Raw volumes to parquet shards, one a case, and a manifest."""
    from pipeline.stages import prepare as stage

    stage.run(_load(params), results / "prepare", runs, case=case, jobs=jobs)


@app.command()
def split(params: ParamsOption = PARAMS, results: ResultsOption = RESULTS) -> None:
    """Give every slice a role: train, validation, test or unused."""
    from pipeline.stages import split as stage

    stage.run(_load(params), results / "prepare", results / "split")


@app.command()
def search(
    params: ParamsOption = PARAMS,
    gpus: GpusOption = 1,
    results: ResultsOption = RESULTS,
    runs: RunsOption = RUNS,
) -> None:
    """Optuna's search over LoRA rank, Dice weight and the start of lambda."""
    loaded, device = _load(params), _device(gpus)
    from pipeline.stages import search as stage

    stage.run(
        loaded, results / "prepare", results / "split", results / "search", runs, device=device
    )


@app.command()
def train(
    params: ParamsOption = PARAMS,
    gpus: GpusOption = 1,
    results: ResultsOption = RESULTS,
    runs: RunsOption = RUNS,
) -> None:
    """Train the model on the training slices; an interrupted training goes on."""
    loaded, device = _load(params), _device(gpus)
    from pipeline.stages import train as stage

    stage.run(
        loaded,
        results / "prepare",
        results / "split",
        results / "search",
        results / "train",
        runs,
        device=device,
    )


@app.command()
def evaluate(
    params: ParamsOption = PARAMS,
    gpus: GpusOption = 1,
    results: ResultsOption = RESULTS,
    runs: RunsOption = RUNS,
    run: TrainedOption = None,
) -> None:
    """Predict the test cases and score them, organ by organ."""
    loaded, device = _load(params), _device(gpus)
    from pipeline.stages import evaluate as stage

    stage.run(
        loaded,
        results / "prepare",
        results / "split",
        run or results / "train",
        results / "evaluate",
        runs,
        device=device,
    )


@app.command()
def report(
    params: ParamsOption = PARAMS,
    results: ResultsOption = RESULTS,
    runs: RunsOption = RUNS,
    reports: Annotated[Path, typer.Option(help="Folder of report.html.")] = REPORTS,
    run: TrainedOption = None,
) -> None:
    """Write the HTML report and record the run as a row of `dvc exp show`."""
    from pipeline.reporting import experiments
    from pipeline.stages import report as stage

    loaded = _load(params)
    model = results / "train"
    if run is not None:
        from pipeline.inference import trained

        model = trained.model_folder(run)
    stage.run(
        loaded,
        results / "prepare",
        results / "split",
        model,
        results / "search",
        results / "evaluate",
        reports,
        runs,
    )
    experiments.record_run(loaded, results)


@app.command()
def summary(results: ResultsOption = RESULTS, reports: Path = REPORTS) -> None:
    """Print the Dice table of the last run and the path of its report."""
    from pipeline.stages import report as stage

    stage.print_summary(results / "evaluate", reports / "report.html")


@app.command()
def score(
    truth: Annotated[Path, typer.Option(help="Folder of the true label volumes.")],
    prediction: Annotated[Path, typer.Option(help="Folder of the predicted ones.")],
    labels: Annotated[
        Path,
        typer.Option(help="Organs' labels: params.yaml, model.json, dataset.json, or a mapping."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for tables and metrics.json.")],
    prediction_labels: Annotated[
        Path | None, typer.Option(help="The same of the predictions, where they differ.")
    ] = None,
    convention: Annotated[
        Convention, typer.Option(help="How empty organs count in the headline.")
    ] = "paper",
    truth_name: Annotated[
        str, typer.Option(help="Names of the true volumes, such as label{case}.")
    ] = "{case}",
    prediction_name: Annotated[
        str,
        typer.Option(help="Names of the predicted ones: {case}/{case}_seg, {case}/{organ}, ..."),
    ] = "{case}",
    case: Annotated[
        list[str] | None, typer.Option(help="Score this case only; may be given again.")
    ] = None,
    jobs: JobsOption = 1,
) -> None:
    """Score label volumes of any tool against the truth, case by case."""
    from pipeline.commands import score as scoring

    scoring.run(
        truth,
        prediction,
        labels,
        out,
        prediction_labels=prediction_labels,
        convention=convention,
        names=(truth_name, prediction_name),
        cases=case or (),
        jobs=jobs,
    )


RunsArgument = Annotated[
    list[Path], typer.Argument(metavar="RUN...", help="Folders of scores, or run folders.")
]
NamesOption = Annotated[
    list[str] | None, typer.Option("--name", help="A run's name in tables; once for each.")
]


@app.command()
def compare(
    runs: RunsArgument,
    name: NamesOption = None,
    score: Annotated[str, typer.Option(help="The score to plot.")] = "dice",
    out: Annotated[Path, typer.Option(help="Folder for table and plot.")] = REPORTS / "comparison",
) -> None:
    """Compare runs on the same test cases, case by case; the first is the one to compare with."""
    from pipeline.commands import compare as comparing

    comparing.run(runs, out, names=name or (), score=score)


@app.command()
def predict(
    scan: Annotated[
        list[Path],
        typer.Argument(help="NIfTI, MetaImage, NRRD or HDF5 files, DICOM folders, folders of any."),
    ],
    run: Annotated[Path, typer.Option(help="Run folder of a training, or results/train.")],
    out: Annotated[Path, typer.Option(help="Folder for label maps and records.")],
    checkpoint: CheckpointOption = None,
    device: Annotated[
        Device, typer.Option(help="Where to compute; auto: a GPU where there is one.")
    ] = Device.auto,
    batch: Annotated[int, typer.Option(min=1, help="Slices per forward pass.")] = 16,
    stage: Annotated[Stage, typer.Option(help="Which decoder's answer.")] = Stage.mean,
    tta: Annotated[
        bool, typer.Option("--tta", help="Average over small rotations and scales; 5 x the time.")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also the probability of every class.")
    ] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also a picture of slices.")] = False,
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="Also a DICOM Segmentation of a DICOM series.")
    ] = False,
    format: Annotated[
        LabelFormat | None, typer.Option(help="Of the label maps; default: as the scan.")
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="DICOM series by number, description or UID.")
    ] = None,
) -> None:
    """Label your own scans with a trained model, on exactly the grid of each scan."""
    chosen = "cpu" if device is Device.cpu else _device(1)
    if device is Device.cuda and chosen != "cuda":
        raise UserError("--device cuda: no GPU can be seen; use --device cpu.")
    from pipeline.commands import predict as predict_scans

    ending = None if format is None else f".{format.value}"
    wanted = predict_scans.Wanted(
        stage.value, tta, batch, probabilities, overlay, dicom_seg, ending, series
    )
    if not predict_scans.run(scan, run, out, wanted, checkpoint, chosen):
        raise typer.Exit(1)


@app.command()
def figures(
    runs: RunsArgument,
    name: NamesOption = None,
    prepared: Annotated[
        Path, typer.Option(help="Prepared data that the runs were evaluated on.")
    ] = RESULTS / "prepare",
    slices: Annotated[int, typer.Option(min=1, max=50, help="Slices in each figure.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the slices.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the figures.")] = REPORTS / "figures",
) -> None:
    """Draw the paper's figures from one evaluated run or several, as PNG and SVG."""
    from pipeline.commands import figures as paper_figures

    paper_figures.run(runs, prepared, out, names=name or (), slices=slices, seed=seed)


@app.command("import-checkpoint")
def import_checkpoint(
    adapter: Annotated[Path, typer.Option(help="Adapter file of the published H-SAM code.")],
    sam: Annotated[Path, typer.Option(help="Meta's SAM file that it was trained on.")],
    preset: Annotated[str, typer.Option(help="Preset that describes it: synapse-10pct, ...")],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    params: Annotated[
        list[Path] | None,
        typer.Option("--params", help="Parameter files that are laid over the preset."),
    ] = None,
) -> None:
    """Turn a published checkpoint into a run folder."""
    from pipeline.commands import import_checkpoint as importing

    importing.run(adapter, sam, _load([importing.preset_file(preset), *(params or ())]), out)


@app.command()
def export(
    run: Annotated[Path, typer.Option(help="Run folder of a training, or results/train.")],
    out: Annotated[Path, typer.Option(help="Folder for the model and its record.")],
    format: Annotated[ExportFormat, typer.Option(help="File format.")] = ExportFormat.onnx,
    stage: Annotated[Stage, typer.Option(help="Which decoder's logits it gives.")] = Stage.mean,
    batch: Annotated[int, typer.Option(min=1, help="Slices that it takes at a time.")] = 1,
    checkpoint: CheckpointOption = None,
) -> None:
    """Write a run's model as one file for other programs, checked against the run."""
    from pipeline.commands import export as exporting

    exporting.run(run, out, format.value, stage.value, batch, checkpoint)


@app.command("params")
def show_params(
    params: ParamsOption = PARAMS,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema.")] = False,
    write: Annotated[
        Path | None, typer.Option(help="Write here, with comments, instead of printing.")
    ] = None,
) -> None:
    """Check parameters and print all of them with their meaning; without a file, the defaults."""
    nothing = params == PARAMS and not PARAMS[0].exists()
    text = schema_text() if schema else render(_load([] if nothing else params))
    if write is None:
        typer.echo(text, nl=False)
    else:
        from pipeline.core import files

        files.write_text(write, text)


def _load(paths: list[Path]) -> Params:
    # DVC composes params.yaml without its comments; only then is it ours to mend
    if os.environ.get("DVC_EXP_NAME") and paths == PARAMS:
        restore_comments(PARAMS[0])
    if paths == PARAMS and not PARAMS[0].exists():
        raise UserError(
            "params.yaml: there is no such file in this folder; `hsam params --write params.yaml` "
            "makes one, --params names another."
        )
    return load(paths)


def _device(gpus: int) -> str:
    """Lease GPUs and count cores before PyTorch looks for them; the device to work on."""
    from pipeline.core import gpu

    # as many threads as Snakemake sets with --cores all, for the last bit depends on their number
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    return "cuda" if gpu.lease(gpus) else "cpu"


def main() -> None:
    """Run the command; a user's mistake is printed and ends with exit code 2."""
    try:
        app()
    except UserError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
    except Stopped as stopped:
        name = signal.Signals(stopped.signal).name
        print(f"{stopped}, on {name}; the same command goes on from here", file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except SystemExit as end:
        if end.code == 128 + signal.SIGINT:  # what Typer makes of a KeyboardInterrupt
            print("interrupted; the same command goes on from here", file=sys.stderr)
        raise

"""Options that several commands share, and what some may be."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from pipeline.core import writable
from pipeline.core.registry import CONVENTIONS
from pipeline.scoring.scores import SCORES

PARAMS = [Path("params.yaml")]
RESULTS, RUNS, REPORTS = Path("results"), Path("runs"), Path("reports")
WEIGHTS = Path("checkpoints")


def output_folder(help: str, *names: str) -> Any:
    """An option of a folder that the command writes to: checked before anything is computed."""
    return typer.Option(*names, metavar="FOLDER", help=help, callback=writable_folder)


def output_file(help: str) -> Any:
    """The same of a file."""
    return typer.Option(metavar="FILE", help=help, callback=_writable_file)


def writable_folder(path: Path | None) -> Path | None:
    """The folder, unless nothing could be written there."""
    if path is not None:
        writable.check_folder(path)
    return path


def _writable_file(path: Path | None) -> Path | None:
    if path is not None:
        writable.check_file(path)
    return path


ParamsOption = Annotated[
    list[Path],
    typer.Option(
        "--params",
        metavar="FILE",
        help="Parameters, whole or partial; given again, each is laid over those before it, and "
        "the first over the packaged defaults.",
        show_default="params.yaml",
    ),
]
ParamsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="FILE",
        help="Parameter files, each laid over those before it; none: params.yaml.",
        show_default=False,
    ),
]
PublishedOption = Annotated[
    Path, typer.Option("--results", metavar="FOLDER", help="The stages' published outputs.")
]
PageOption = Annotated[Path, typer.Option("--reports", metavar="FOLDER", help="Of report.html.")]
# the same where the command writes there
ResultsOption = Annotated[Path, output_folder("The stages' published outputs.", "--results")]
RunsOption = Annotated[Path, output_folder("The stages' working folders.", "--runs")]
FoundRunsOption = Annotated[
    Path, typer.Option("--runs", metavar="FOLDER", help="The stages' working folders.")
]
ReportsOption = Annotated[Path, output_folder("Of report.html.", "--reports")]
StudyOption = Annotated[
    str | None,
    typer.Option(
        "--study",
        metavar="STUDY/ARM/draw-D-seed-S",
        help="A run of a study, in place of --params (`hsam study`); over folds with -fold-F.",
    ),
]
OnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--on",
        metavar="PRESET",
        help="What the study is run on: presets or parameter files, such as phantoms.",
    ),
]
GpusOption = Annotated[
    int,
    typer.Option("--gpus", metavar="N", min=0, help="GPUs to use; 0, or none there: the CPU."),
]
JobsOption = Annotated[
    int, typer.Option("--jobs", metavar="N", min=1, help="Processes to work in.")
]
RunOption = Annotated[
    Path,
    typer.Option("--run", metavar="RUN", help="A run's name (`hsam runs`), or its folder."),
]
TrainedOption = Annotated[
    Path | None,
    typer.Option(
        "--run",
        metavar="RUN",
        help="The model: a run's name (`hsam runs`), or its folder.",
        show_default="results/train",
    ),
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Weights of a frozen encoder.",
        show_default="the file that the run recorded",
    ),
]
RunsArgument = Annotated[
    list[Path],
    typer.Argument(metavar="RUN", help="Names of runs, folders of scores, or run folders."),
]
NameOption = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="For `hsam runs` and --run.",
        show_default="data set, model and a number",
    ),
]
NamesOption = Annotated[
    list[str] | None,
    typer.Option("--name", metavar="NAME", help="A run's name in tables; once for each run."),
]
if TYPE_CHECKING:  # a type checker can't look into the registries
    Convention: TypeAlias = str
    ScoreName: TypeAlias = str
else:
    Convention = StrEnum("Convention", {name: name for name in CONVENTIONS})
    ScoreName = StrEnum("ScoreName", {name: name for name in SCORES})
ScoreOption = Annotated[
    ScoreName, typer.Option("--score", metavar="NAME", help=f"To plot: {', '.join(SCORES)}.")
]
Device = Literal["auto", "cpu", "cuda"]
Stage = Literal["mean", "coarse", "fine"]
ExportFormat = Literal["onnx", "torch-export", "huggingface", "monai-bundle"]
FigureStyle = Literal["fill", "contour", "both"]
FigureMarks = Literal["first", "all", "none"]
LabelFormat = Literal["nii.gz", "nii", "mha", "nrrd"]

"""Models on scans of one's own: predicting, and handing models on."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.command import command
from pipeline.cli.given import leased_device, model_of, parameters
from pipeline.cli.help import SCANS
from pipeline.cli.options import (
    RUNS,
    CheckpointOption,
    Device,
    ExportFormat,
    LabelFormat,
    RunOption,
    RunsOption,
    Stage,
    output_folder,
)
from pipeline.core.errors import UserError


@command(
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
    run: Annotated[
        list[Path],
        typer.Option(
            "--run",
            metavar="RUN",
            help="A run's name (`hsam runs`), or its folder. An arm of a study, or several: the "
            "mean of all their models.",
        ),
    ],
    out: Annotated[Path, output_folder("For label maps and records.")],
    checkpoint: CheckpointOption = None,
    device: Annotated[
        Device, typer.Option(help="Where to compute; auto: a GPU where there is one.")
    ] = "auto",
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Slices per forward pass.")] = 16,
    stage: Annotated[Stage, typer.Option(help="Which decoder's answer.")] = "mean",
    snapshots: Annotated[
        bool,
        typer.Option(
            "--snapshots",
            help="Average with the models kept during training (train.snapshots); a pass for each.",
        ),
    ] = False,
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
    folder, *others = (model_of(one) for one in run)
    chosen = "cpu" if device == "cpu" else leased_device(1)
    if device == "cuda" and chosen != "cuda":
        raise UserError("--device cuda: no GPU can be seen; use --device cpu.")
    from pipeline.commands import predict as predict_scans

    ending = None if format is None else f".{format}"
    wanted = predict_scans.Wanted(
        stage,
        tuple(others),
        snapshots,
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


@command(
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

    loaded = parameters([importing.preset_file(preset), *(params or ())])
    importing.run(adapter, sam, loaded, out, axes)


@command(SCANS, "export", "hsam export --run results/train --out exported --format onnx")
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
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Of evaluations of models trained alike, as a study's arm over folds: huggingface "
            "predicts Dice as their cases say.",
            show_default="the model's own evaluation",
        ),
    ] = None,
) -> None:
    """Write a run's model as a file for other programs, with a model card, or as a MONAI bundle.

    Its answers are compared with the run's before it is kept.
    """
    folder = model_of(run)
    batch = batch or (16 if format == "monai-bundle" else 1)
    from pipeline.commands import export as exporting

    exporting.run(folder, out, format, stage, batch, checkpoint, calibrate)


@command(SCANS, "push", "hsam push results/train /mnt/shared/models/liver")
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
    folder = model_of(run)
    from pipeline.commands import push as pushing

    pushing.push(folder, target, public)


@command(SCANS, "pull", "hsam pull /mnt/shared/models/liver")
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

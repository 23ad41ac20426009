"""`hsam import-checkpoint`: a checkpoint of the published H-SAM code as a run folder.

Reads the adapter file and the SAM file that it was trained on. The preset says what the files
don't: model, organs, intensity rule, axes of the slices. Writes the same files as the train stage.
"""

from pathlib import Path

from hsam.two_stage import HSAM
from hsam.weights import storage
from hsam.weights.published_adapter import load_published_adapter
from pipeline import datasets
from pipeline.core import files, home, sources, weight_files
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import AXES_RULE, Params, is_axes, stage_params
from pipeline.core.run_folder import IMPORT, RunFolder
from pipeline.imaging.geometry import preparation
from pipeline.imaging.intensity import record
from pipeline.shards.recipe import Recipe
from pipeline.training.build import build_model
from pipeline.training.history import EPOCH_COLUMNS, VALIDATION_COLUMNS, table


def preset_file(preset: str) -> Path:
    """The parameter file of a preset's name.

    Raises:
        UserError: there is none; the known ones are listed.
    """
    known = {path.stem: path for path in sorted((home.WORKFLOW / "presets").glob("*.yaml"))}
    if preset not in known:
        raise UserError(f"--preset {preset}: expected one of {', '.join(known)}.")
    return known[preset]


def run(
    adapter: Path, sam: Path | None, params: Params, out: Path, axes: str | None = None
) -> None:
    """Import a published checkpoint; `out` appears whole or not at all.

    Args:
        adapter: file of the published code: LoRA, prompt encoder and both decoders.
        sam: Meta's SAM file that it was trained on; None: the published one, wherever it lies.
        params: `train` and `dataset` describe the model and its data.
        out: the run folder to make; must not be there yet.
        axes: of the slices that it was trained on; None: `prepare.axes`, or else those of the
            published code's own preparation of the data set.

    Raises:
        UserError: files that are missing, that don't fit the preset or each other, or an `out`
            that is there already.
    """
    if out.exists():
        raise UserError(f"{out}: is there already; name a new folder with --out.")
    if axes is not None and not is_axes(axes):
        raise UserError(f"--axes: {AXES_RULE}, found {axes}.")
    if not adapter.is_file():
        raise UserError(f"--adapter: there is no file {adapter}.")
    if params.train.model != "hsam":
        raise UserError(
            f"train.model: expected hsam, found {params.train.model}; the published code has no "
            "other."
        )
    named = weight_files.AUTO if sam is None else str(sam)
    settings = params.train.model_copy(update={"sam_checkpoint": named, "train_encoder": False})
    sam = sam or weight_files.chosen(settings)
    assert sam is not None, "H-SAM starts from a file"
    digest = weight_files.checked_sha256(sam, settings.backbone, "--sam")
    recipe = Recipe.of(params)
    data_set = datasets.get(params.dataset)
    axes = axes or params.prepare.axes or data_set.published_axes or recipe.axes
    names = list(data_set.labels(params.dataset).names)
    model = build_model(settings, len(names), params.seed_of("train"))
    assert isinstance(model, HSAM)
    try:
        report = load_published_adapter(model, adapter)
    except ValueError as error:
        raise UserError(f"--adapter: {error}; choose the --preset it was trained with.") from None
    with files.staged_folder(out) as new:
        imported = params.model_copy(update={"train": settings})
        key = {
            "stage": IMPORT,
            "params": stage_params(imported, "train"),
            "inputs": {"adapter": files.sha256(adapter), "sam_checkpoint": digest},
            "code": sources.digest("pipeline.commands.import_checkpoint"),
        }
        work = RunFolder(new, key)
        storage.save(
            model,
            work.out,
            class_names=names,
            intensity=record(recipe.intensity),
            preparation=preparation(axes, recipe.spacing_mm),
            resizing="published",
            data_set=data_set.name,
        )
        # nothing is known of its training
        files.write_text(work.out / "history.csv", table(EPOCH_COLUMNS, []))
        files.write_text(work.out / "validation.csv", table(VALIDATION_COLUMNS, []))
        work.finish()
    say(
        f"import-checkpoint: {len(report.loaded)} tensors of {adapter.name}, "
        f"{settings.backbone} at {settings.image_size} px, {len(names)} organs, slices along "
        f"{axes}, in {out}; `hsam evaluate` wants data prepared with prepare.axes: {axes}"
    )

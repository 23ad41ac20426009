"""Stage train: the model, trained on the split's training slices.

Inputs: shards and manifest (prepare), the split, the search's best overlay.
Outputs: model.json and model.safetensors (`hsam.load` builds the model from them), history.csv
(one row an epoch), validation.csv (one row a validation and organ), dvclive/ (the same for
`dvc plots` and Studio), provenance.json. In the run folder lie the checkpoints, from which an
interrupted training goes on, and at the end the models of the last and of the best epoch.
"""

import shutil
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from hsam.model import SegmentationModel
from hsam.weights import storage
from pipeline.core import files, run_folder, sources
from pipeline.core.console import say
from pipeline.core.params.blocks import Params, Train, stage_params
from pipeline.core.params.load import overlay, read_yaml, validate
from pipeline.core.writable import naming_unwritable
from pipeline.training.build import build_model, sam_file
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import launch, make_fabric
from pipeline.training.fit import LOG, Progress, fit
from pipeline.training.history import EPOCH_COLUMNS, VALIDATION_COLUMNS, table
from pipeline.training.prepared import TrainingData
from pipeline.training.sam_files import checked_sha256
from pipeline.training.validation import Validation


def run(
    params: Params,
    prepared: Path,
    split: Path,
    search: Path,
    out: Path,
    runs: Path,
    *,
    device: str,
) -> None:
    """Train, or find it done; then publish to `out`.

    Args:
        params: all parameters; `base` and `train` are read.
        prepared, split, search: published folders of these stages.
        out: folder to publish to.
        runs: folder of the run folders.
        device: "cpu" or "cuda".

    Raises:
        UserError: inputs that are missing or don't belong together, or no training slices.
        Stopped: a signal asked for it; the same call goes on from there.
    """
    best = search / "best.yaml"
    settings = with_overlay(params, best).train
    data = TrainingData.open(prepared, split)
    inputs = dict(data.hashes)
    if read_overlay(best):
        inputs["search"] = files.sha256(best)
    if (sam := sam_file(settings)) is not None:
        inputs["sam_checkpoint"] = checked_sha256(sam, settings.backbone)
    key, code = stage_params(params, "train"), sources.chosen("train", params)
    with run_folder.open_run(runs, data.name, "train", key, inputs, code) as run:
        if (other := run.other_at(out)) is not None:
            say(
                f"train: {out} holds another run, with other {other}; this one takes its place "
                f"there when it is done, and the other stays in {runs} unless it was removed"
            )
        if run.is_done():
            say(f"train: already done in {run.path}")
        else:
            data.check_training(split)
            if settings.validate_every:
                data.check_validation(split, "train.validate_every", "the model is validated", "0")
            data.check_shards("train", *(["validation"] if settings.validate_every else []))
            if params.search.trials and "search" not in inputs:
                say(f"train: no search in {search}, so the parameters are taken as they are")
            checkpoints = Checkpoints(run.path)
            checkpoints.mend()
            fabric = make_fabric(settings, device)
            launch(fabric, _train, params.seed_of("train"), settings, data, run.path)
            _collect(run, settings.keep)
            run.finish()
            checkpoints.remove()
        run.publish(out)
    say(
        f"train: {settings.model} of {settings.epochs} epochs in {out}; next: hsam evaluate, or "
        f"hsam predict SCAN --run {out}"
    )


def with_overlay(params: Params, path: Path) -> Params:
    """The parameters, with the values of the search's best.yaml at `path` in place of theirs.

    Raises:
        UserError: values that are not allowed.
    """
    return validate(overlay(params.model_dump(mode="json"), read_overlay(path)), str(path))


def read_overlay(path: Path) -> dict[str, Any]:
    """What a search found best; nothing where there was none, or it had no trials."""
    return read_yaml(path) if path.is_file() else {}


def _train(
    fabric: Fabric,
    seed: int,
    settings: Train,
    data: TrainingData,
    folder: Path,
) -> None:
    """Train on one of fabric's devices; the first one writes the models and tables."""
    model = build_model(settings, len(data.class_names), seed)
    with naming_unwritable(folder):
        progress = fit(
            fabric,
            model,
            data.slices("train", settings.cache_mib),
            settings,
            seed=seed,
            validate=Validation.of(data) if settings.validate_every else None,
            folder=folder,
            facts=_facts(data),
        )
        if fabric.is_global_zero:
            _write(model, progress, data, folder)


def _facts(data: TrainingData) -> dict[str, str]:
    """The data's rows of the table of settings."""
    facts = {f"{name} SHA-256": value[:12] for name, value in data.hashes.items()}
    if unseen := data.unseen_organs():
        facts["warning"] = f"no training slice shows {', '.join(unseen)}: not to be learned"
    return facts


def _write(model: SegmentationModel, progress: Progress, data: TrainingData, folder: Path) -> None:
    """The folders last and best, each a model; history.csv and validation.csv."""
    about: dict[str, Any] = {
        "class_names": data.class_names,
        "intensity": data.intensity,
        "preparation": data.preparation,
        "data_set": data.name,
    }
    storage.save(model, folder / "last", **about)
    if progress.best is not None:
        model.load_state_dict(progress.best[1], strict=False)
        storage.save(model, folder / "best", **about)
    history = progress.history
    files.write_text(folder / "history.csv", table(EPOCH_COLUMNS, history.epochs))
    files.write_text(folder / "validation.csv", table(VALIDATION_COLUMNS, history.validations))


def _collect(run: run_folder.RunFolder, kept: str) -> None:
    """The outputs of a finished training: the model that is kept, the tables, dvclive's files."""
    shutil.rmtree(run.out)
    shutil.copytree(run.path / kept, run.out)
    for name in ("history.csv", "validation.csv"):
        shutil.copyfile(run.path / name, run.out / name)
    shutil.copytree(run.path / LOG, run.out / LOG)

"""A whole training, from data and settings to a run folder with models, tables and logs."""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from hsam.model import SegmentationModel
from hsam.weights import storage
from pipeline.core import cost, files
from pipeline.core.cost import Cost
from pipeline.core.params.blocks import Train
from pipeline.core.run_folder import SNAPSHOTS, RunFolder
from pipeline.core.writable import naming_unwritable
from pipeline.inference.records import start_folder
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import launch, make_fabric
from pipeline.training.display import LOG
from pipeline.training.embeddings import Embeddings, embedded
from pipeline.training.fit import fit
from pipeline.training.history import EPOCH_COLUMNS, VALIDATION_COLUMNS, table
from pipeline.training.prepared import TrainingData
from pipeline.training.start import started
from pipeline.training.state import Progress
from pipeline.training.validation import Validation
from pipeline.training.validation_embeddings import ValidationEmbeddings


def train(run: RunFolder, settings: Train, data: TrainingData, seed: int, device: str) -> None:
    """Train, or go on from the newest checkpoint, and put what is published into `run.out`.

    Args:
        run: for checkpoints, logs, tables, and the models of the last and of the best epoch.
        settings: the `train` block.
        data: prepared data and their split.
        seed: of the training, `Params.seed_of("train")`.
        device: "cpu" or "cuda".

    Raises:
        UserError: as `fit`; devices or a precision that there aren't.
        Stopped: a signal asked for it; the same call goes on from there.
    """
    Checkpoints(run.path).mend()
    embeddings = embedded(run, settings, data, seed, device)
    start = start_folder(settings.start, run.path.parent)
    fabric = make_fabric(settings, device)
    launch(fabric, _train, seed, settings, data, run.path, embeddings, start)
    _collect(run.path, run.out, settings.keep)


def clear(folder: Path) -> None:
    """Remove the checkpoints of a finished training."""
    Checkpoints(folder).remove()


def _train(
    fabric: Fabric,
    seed: int,
    settings: Train,
    data: TrainingData,
    folder: Path,
    embeddings: Embeddings | None,
    start: Path | None,
) -> None:
    """Train on one of fabric's devices; the first one writes the models and tables."""
    begun = started(settings, len(data.class_names), seed, start, data.hashes.get("manifest"))
    model = begun.model
    about = _about(data) if fabric.is_global_zero else {}
    kept = None if embeddings is None else ValidationEmbeddings(settings.cache_mib)
    with naming_unwritable(folder):
        progress = fit(
            fabric,
            model,
            data.slices("train", settings.cache_mib),
            settings,
            seed=seed,
            validate=Validation.of(data, kept) if settings.validate_every else None,
            folder=folder,
            facts=_facts(data) | dict(begun.facts),
            embeddings=embeddings,
            snapshot=partial(_keep, folder, about) if settings.snapshots else None,
        )
        if fabric.is_global_zero:
            _write(model, progress, about, folder)
            Cost.of(progress.seconds, fabric.device, fabric.world_size).write(folder)


def _facts(data: TrainingData) -> dict[str, str]:
    """The data's rows of the table of settings."""
    facts = {f"{name} SHA-256": value[:12] for name, value in data.hashes.items()}
    if unseen := data.unseen_organs():
        facts["warning"] = f"no training slice shows {', '.join(unseen)}: not to be learned"
    return facts


def _about(data: TrainingData) -> dict[str, Any]:
    """What a stored model says of its data."""
    return {
        "class_names": data.class_names,
        "intensity": data.intensity,
        "preparation": data.preparation,
        "data_set": data.name,
        "data_title": data.title,
        "usual": data.usual(),
    }


def _keep(folder: Path, about: Mapping[str, Any], model: SegmentationModel, epochs: int) -> None:
    """A snapshot: the model after so many epochs."""
    storage.save(model, folder / SNAPSHOTS / f"epoch-{epochs:05}", **about)


def _write(
    model: SegmentationModel, progress: Progress, about: Mapping[str, Any], folder: Path
) -> None:
    """The folders last and best, each a model; history.csv and validation.csv."""
    storage.save(model, folder / "last", **about)
    if progress.best is not None:
        model.load_state_dict(progress.best[1], strict=False)
        storage.save(model, folder / "best", **about)
    history = progress.history
    files.write_text(folder / "history.csv", table(EPOCH_COLUMNS, history.epochs))
    files.write_text(folder / "validation.csv", table(VALIDATION_COLUMNS, history.validations))


def _collect(folder: Path, out: Path, kept: str) -> None:
    """The outputs of a finished training: the model that is kept, the tables, dvclive's files."""
    shutil.rmtree(out)
    shutil.copytree(folder / kept, out)
    for name in ("history.csv", "validation.csv", cost.NAME):
        shutil.copyfile(folder / name, out / name)
    shutil.copytree(folder / LOG, out / LOG)
    # both workflow engines expect the folder
    (folder / SNAPSHOTS).mkdir(exist_ok=True)
    shutil.copytree(folder / SNAPSHOTS, out / SNAPSHOTS)

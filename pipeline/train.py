"""Stage train: the model, trained on the split's training slices.

Inputs: shards and manifest (prepare), the split, the search's best overlay.
Outputs: model.json and model.safetensors (`hsam.load` builds the model from them), history.csv
(one row an epoch), provenance.json. The state after each epoch lies in the run folder, where an
interrupted training goes on.
"""

import csv
import io
from functools import partial
from pathlib import Path

import hsam
from pipeline import files, run_folder
from pipeline.console import say
from pipeline.errors import UserError
from pipeline.fit import COLUMNS, build_model, fit
from pipeline.params import Params, Train, overlay, read_yaml, stage_params, validate
from pipeline.sam_files import checked_sha256
from pipeline.training_data import TrainingData, validation_dice


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
    """
    best = search / "best.yaml"
    settings = with_overlay(params, best).train
    data = TrainingData.open(prepared, split)
    inputs = {**data.hashes, "search": files.sha256(best)}
    if settings.sam_checkpoint is not None:
        inputs["sam_checkpoint"] = checked_sha256(Path(settings.sam_checkpoint), settings.backbone)
    key = stage_params(params, "train")
    with run_folder.open_run(runs, data.name, "train", key, inputs) as run:
        if run.is_done():
            say(f"train: already done in {run.path}")
        else:
            _train(params.base.seed, settings, data, run, device)
        run.publish(out)


def with_overlay(params: Params, path: Path) -> Params:
    """The parameters with the overlay in `path` laid over them."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; run the search stage first.")
    return validate(overlay(params.model_dump(mode="json"), read_yaml(path)), str(path))


def _train(
    seed: int,
    settings: Train,
    data: TrainingData,
    run: run_folder.RunFolder,
    device: str,
) -> None:
    model = build_model(settings, len(data.class_names), seed)
    say(
        f"train: {len(data.names('train'))} slices, {settings.epochs} epochs, {settings.backbone} "
        f"at {settings.image_size} px, {model.count_trainable():,} trained parameters, {device}"
    )
    score = None
    if settings.validate_every:
        score = partial(
            validation_dice,
            volumes=data.volumes("validation"),
            batch_size=settings.batch_size,
            device=device,
        )
    slices = data.slices("train", settings.image_size, settings.cache_mib)
    progress = fit(
        model,
        slices,
        settings,
        seed=seed,
        device=device,
        validate=score,
        folder=run.path,
    )
    hsam.save(
        model,
        run.out,
        class_names=data.class_names,
        intensity=data.intensity,
        preparation=data.preparation,
    )
    files.write_text(run.out / "history.csv", _history(progress.history))
    run.finish()


def _history(rows: list[dict[str, float | None]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()

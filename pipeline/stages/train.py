"""Stage train: the model, trained on the split's training slices.

Inputs: shards and manifest (prepare), the split, the search's best overlay.
Outputs: model.json and model.safetensors (`hsam.load` builds the model from them), history.csv
(one row an epoch), validation.csv (one row a validation and organ), dvclive/ (the same for
`dvc plots` and Studio), cost.json (time, devices, memory), provenance.json. In the run folder lie
the checkpoints, from which an interrupted training goes on, and at the end the models of the last
and of the best epoch.
"""

from pathlib import Path
from typing import Any

from pipeline.core import files, gpu, installed, run_folder, run_names, sources, weight_files
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Params, stage_params
from pipeline.core.params.load import overlay, read_yaml, validate
from pipeline.inference.records import start_folder
from pipeline.training.prepared import TrainingData


def run(
    params: Params,
    prepared: Path,
    split: Path,
    search: Path,
    out: Path,
    runs: Path,
    *,
    device: gpu.Device,
    name: str | None = None,
    title: str | None = None,
) -> None:
    """Train, or find it done; then publish to `out`.

    Args:
        params: all parameters; `base` and `train` are read.
        prepared, split, search: published folders of these stages.
        out: folder to publish to.
        runs: folder of the run folders.
        device: where to train; leased only if something is left to do.
        name: for the run; None: the one that it has, or data, model and a number.
        title: what people call the data; None: the data set's name.

    Raises:
        UserError: inputs that are missing or don't belong together, no training slices, an earlier
            run to start from that isn't there or that this one would replace, or another run's
            name.
        Stopped: a signal asked for it; the same call goes on from there.
    """
    best = search / "best.yaml"
    settings = with_overlay(params, best).train
    data = TrainingData.open(prepared, split, title)
    inputs = dict(data.hashes)
    if read_overlay(best):
        inputs["search"] = files.sha256(best)
    if (sam := weight_files.chosen(settings)) is not None:
        inputs["sam_checkpoint"] = weight_files.checked_sha256(sam, settings.backbone)
    if (start := start_folder(settings.start, runs)) is not None:
        if start.resolve().is_relative_to(Path(out).resolve()):
            raise UserError(
                f"train.start: {settings.start} lies in {out}, where this training's own "
                "model goes; name the run instead, as `hsam runs` does."
            )
        inputs["start"] = files.sha256(start / run_folder.MODEL_FILES[1])
    key, code = stage_params(params, "train"), sources.chosen("train", params)
    with run_folder.open_run(runs, data.name, "train", key, inputs, code) as run:
        called = run_names.settle(run.path, run_names.stem(data.title, settings.model), name)
        if (other := run.other_at(out)) is not None:
            say(
                f"train: {out} holds another run, with other {other}; this one takes its place "
                f"there when it is done, and the other stays in {runs} unless it was removed"
            )
        if run.is_done():
            say(f"train: already done in {run.path}")
        else:
            if settings.tensorboard:
                installed.need(["tensorboard"], "tensorboard", "train.tensorboard")
            data.check_training(split)
            if settings.validate_every:
                data.check_validation(split, "train.validate_every", "the model is validated", "0")
            data.check_shards("train", *(["validation"] if settings.validate_every else []))
            if params.search.trials and "search" not in inputs:
                say(f"train: no search in {search}, so the parameters are taken as they are")
            settled = gpu.settled(device)
            # imports PyTorch, which takes longer than finding that all is done
            from pipeline.training import session

            session.train(run, settings, data, params.seed_of("train"), settled)
            run.finish()
            session.clear(run.path)
        run.publish(out)
    say(
        f"train: {called}, {settings.model} of {settings.epochs} epochs in {out}; next: hsam "
        f"evaluate, or hsam predict SCAN --run {out}"
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

"""The training loop, for the stage train and for each trial of search."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from hsam.model import SegmentationModel
from hsam.registry import MODELS
from hsam.schedules import lr_factor, stage_weight
from pipeline.core import files
from pipeline.core.console import show_table
from pipeline.core.errors import Stopped, UserError
from pipeline.core.params.blocks import Train
from pipeline.core.signals import Stop, WaitEnded, listening
from pipeline.inference.precision import set_tf32
from pipeline.training import preflight
from pipeline.training.batches import Batches, Step
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.clock import Clock
from pipeline.training.display import Display, watched
from pipeline.training.embeddings import Embeddings
from pipeline.training.history import History, Pending
from pipeline.training.loader import SliceLoader, explaining_killed_workers
from pipeline.training.sampling import rare_organ_weights
from pipeline.training.slices import SliceDataset
from pipeline.training.state import Progress, check_checkpoint, resume, state, weights
from pipeline.training.step import Read, Trainer, training_step

NONFINITE = "nonfinite.json"

# gives the Dice of each organ for a model in eval mode, with at most so many slices per forward
# pass; called on all devices at once
Validate = Callable[[SegmentationModel, Fabric, int], Mapping[str, float]]
# keeps the model as it is after so many epochs; called on the first device
Snapshot = Callable[[SegmentationModel, int], None]


def fit(
    fabric: Fabric,
    model: SegmentationModel,
    slices: SliceDataset,
    settings: Train,
    *,
    seed: int,
    validate: Validate | None = None,
    folder: Path | None = None,
    facts: Mapping[str, str] | None = None,
    title: str = "train",
    embeddings: Embeddings | None = None,
    snapshot: Snapshot | None = None,
) -> Progress:
    """Train the model in place; with a folder, resume from the newest checkpoint there.

    Every random choice of a step follows from the seed and the number of the step, so a resumed
    training ends with the same weights as one that was never interrupted.

    Args:
        fabric: launched; `fit` runs on each of its devices.
        model: on any device; it is moved to that of fabric.
        slices: the training slices.
        settings: the `train` block.
        seed: of the training, `Params.seed_of("train")`.
        validate: scores the model after some epochs; None: no validation.
        folder: for checkpoints and logs; None: none are written, and no table is printed.
        facts: further rows of the table of settings that is printed first.
        title: of the progress bar.
        embeddings: of the training slices, where `train.cache_embeddings` asks for them.
        snapshot: keeps models after `train.snapshots` equal shares of the epochs.

    Returns:
        The state at the end; the model holds the last weights, or their moving average where the
        parameters ask for one.

    Raises:
        UserError: a pass doesn't fit into memory, of the size that it began with where a training
            goes on; the loss is not finite; or a process that reads slices was killed.
        Stopped: after a signal, once a checkpoint is written.

    Source: paper, supplement A.1, tables 7 and 8.
    """
    started = time.monotonic()
    set_tf32(settings.tf32)
    store = None if folder is None else Checkpoints(folder)
    saved = None if store is None else store.load()
    if saved is not None and folder is not None:
        check_checkpoint(saved, model, folder)
    passes = _passes(fabric, model, slices, settings, saved, validate is not None)
    batches = _batches(fabric, slices, settings, seed, passes.slices)
    if folder is not None and fabric.is_global_zero:
        rows = _known(facts, embeddings, settings) | watched(folder, settings)
        show_table(title, preflight.derived(fabric, model, settings, batches, rows))
    trainer = Trainer.make(fabric, model, settings, seed)
    progress = Progress() if saved is None else resume(trainer, saved)
    del saved  # its weights and moments would live as long as the training
    source = _source(fabric, slices, settings, batches, passes.spare, embeddings)
    begun, spent = progress.step, progress.seconds
    kept = snapshot_epochs(settings) if snapshot is not None else []
    validated = validation_epochs(settings) if validate is not None else []
    pending, clock = Pending(), Clock(settings.checkpoint_minutes)
    display = Display(
        title,
        progress.history,
        clock,
        batches.total_steps,
        begun,
        validated,
        folder,
        settings,
        shown=fabric.is_global_zero,
    )
    with explaining_killed_workers(), listening() as stop, display:
        read = source(batches.steps(begun), stop)
        for step in batches.steps(begun):
            if progress.stale == settings.early_stopping:
                break
            rate, weight = schedules(settings, batches, step)
            try:
                losses = training_step(trainer, step, read, rate, weight)
            except WaitEnded:
                done = _read_losses(pending, progress.history, slices, fabric, folder)
                if store is not None and done and fabric.world_size == 1:
                    store.save(progress.step, state(trainer, progress, batches.micro_batch))
                where = f"{title}: stopped after step {progress.step:,}, waiting for slices"
                raise Stopped(where, stop.signal or 0, alone=True) from None
            pending.add(step, losses, rate, weight)
            progress.step = step.iteration + 1
            if snapshot is not None and step.ends_epoch and step.epoch + 1 in kept:
                with trainer.averaged():
                    if fabric.is_global_zero:
                        snapshot(model, step.epoch + 1)
            first, last = progress.step == begun + 1, progress.step == batches.total_steps
            validates = step.ends_epoch and step.epoch + 1 in validated
            # clock and signals may differ between devices, which must read losses at the same steps
            due = fabric.world_size == 1 and (clock.due() or stop.signal is not None)
            if not (first or validates or last or due or progress.step % settings.log_every == 0):
                continue
            display.advance(_read_losses(pending, progress.history, slices, fabric, folder), rate)
            if validate is not None and validates:
                with display.validation():
                    _validate(trainer, validate, progress, batches)
            display.log()
            number = _signal_of_any(fabric, stop)
            writes = validates or last or number or clock.due()
            if store is not None and fabric.is_global_zero and writes:
                progress.seconds = spent + time.monotonic() - started
                store.save(progress.step, state(trainer, progress, batches.micro_batch))
                clock.saved()
            display.estimate()
            clock.start()
            if number:
                raise Stopped(f"{title}: stopped after step {progress.step:,}", number)
    # a training that was killed after its last step has no step left
    display.end()
    if trainer.average is not None:
        trainer.average.keep()
    progress.seconds = spent + time.monotonic() - started
    return progress


def _known(
    facts: Mapping[str, str] | None, embeddings: Embeddings | None, settings: Train
) -> dict[str, str]:
    """The first rows of the table of settings."""
    rows = dict(facts or {})
    if embeddings is not None:
        rows["embeddings"] = f"{embeddings.size}, computed once: an epoch costs the decoders alone"
        share = settings.embedding_noise
        if share and "embedding_noise" in MODELS[settings.model].takes:
            times = share * embeddings.range_in_std()
            rows["noise of stage 2"] = (
                f"{share:g} of the embeddings' range, {times:.1f} times their standard deviation"
            )
    return rows


def _source(
    fabric: Fabric,
    slices: SliceDataset,
    settings: Train,
    batches: Batches,
    spare: float,
    embeddings: Embeddings | None,
) -> Callable[[Iterator[Step], Stop], Iterator[Read]]:
    """Where the passes of steps come from: embeddings, or the slices themselves."""
    if embeddings is not None:
        return lambda chosen, stop: embeddings.batches(chosen, fabric.device)
    loader = SliceLoader(
        slices,
        batches.micro_batch,
        settings.workers,
        fabric.device,
        devices=fabric.world_size,
        room=spare / 2,  # the rest is for augmentation, and for what others take
    )
    return lambda chosen, stop: loader.batches(
        (part.indices for step in chosen for part in step.passes), stop
    )


def snapshot_epochs(settings: Train) -> list[int]:
    """After how many epochs models are kept: `train.snapshots` equal shares, the last included."""
    count = settings.snapshots
    return sorted({max(1, round(settings.epochs * k / count)) for k in range(1, count + 1)})


def validation_epochs(settings: Train) -> list[int]:
    """After how many epochs the model is validated; with `train.validate_every`, at the end too."""
    every, epochs = settings.validate_every, settings.epochs
    return sorted({*range(every, epochs + 1, every), epochs}) if every else []


def schedules(settings: Train, batches: Batches, step: Step) -> tuple[float, float]:
    """Learning rate of a step, and lambda, the weight of the coarse stage in its loss.

    Source: paper, supplement A.1, tables 7 and 8.
    """
    factor = lr_factor(
        step.iteration,
        batches.total_steps,
        warmup=settings.warmup_iterations,
        power=settings.lr_power,
    )
    weight = stage_weight(
        step.epoch,
        start=settings.lambda_start,
        end_at_zero=settings.lambda_end_at_zero,
        epochs=settings.epochs,
    )
    return settings.learning_rate * factor, weight


def _passes(
    fabric: Fabric,
    model: SegmentationModel,
    slices: SliceDataset,
    settings: Train,
    saved: Mapping[str, Any] | None,
    validated: bool,
) -> preflight.Passes:
    """The passes of the training; a resumed one keeps their size."""
    most = -(-min(settings.batch_size, len(slices)) // fabric.world_size)
    return preflight.passes(
        fabric,
        model,
        settings,
        most if saved is None else saved["micro_batch"],
        begun=saved is not None,
        validated=slices.largest() if validated else None,
    )


def _batches(
    fabric: Fabric, slices: SliceDataset, settings: Train, seed: int, micro_batch: int
) -> Batches:
    """The steps of the training."""
    weights = None
    if settings.sampler == "rare_organ":
        weights = rare_organ_weights(slices.class_counts())
    return Batches(
        len(slices),
        settings.epochs,
        settings.batch_size,
        micro_batch,
        seed,
        fabric.world_size,
        fabric.global_rank,
        weights,
    )


def _read_losses(
    pending: Pending,
    history: History,
    slices: SliceDataset,
    fabric: Fabric,
    folder: Path | None,
) -> list[Step]:
    """Move pending losses to the history; returns their steps.

    Raises:
        UserError: a loss is not finite.
    """
    done = []
    for step, losses, rate, weight in pending.read():
        if not math.isfinite(losses[0]):
            _refuse_loss(step, losses[0], rate, slices, folder if fabric.is_global_zero else None)
        history.add(step, losses, rate, weight)
        done.append(step)
    return done


def _refuse_loss(
    step: Step, loss: float, rate: float, slices: SliceDataset, folder: Path | None
) -> None:
    """UserError for a loss that is not finite; the slices of its batch are listed in `folder`."""
    names = [slices.names[index] for index in step.indices.tolist()]
    where = ""
    if folder is not None:
        content = {
            "loss": str(loss),
            "epoch": step.epoch,
            "step": step.iteration,
            "learning_rate": rate,
            "slices": [{"case": case, "slice": index} for case, index in names],
        }
        files.write_json(folder / NONFINITE, content)
        where = f" (listed in {folder / NONFINITE})"
    text = ", ".join(f"{case} slice {index}" for case, index in names)
    raise UserError(
        f"train: the loss is {loss} at epoch {step.epoch}, step {step.iteration}, in the batch of "
        f"{text}{where}; lower train.learning_rate, set train.clip_norm, or look at these slices."
    )


def _validate(trainer: Trainer, validate: Validate, progress: Progress, batches: Batches) -> None:
    """Validate the moving average, or the model without one, and keep the best weights."""
    slices = preflight.validation_slices(batches.micro_batch)
    with trainer.averaged():
        trainer.model.eval()
        dice = validate(trainer.model, trainer.fabric, slices)
        trainer.model.train()
        mean = progress.history.add_validation(dice)
        progress.stale += 1
        if progress.best is None or mean > progress.best[0]:
            progress.best, progress.stale = (mean, weights(trainer.model)), 0


def _signal_of_any(fabric: Fabric, stop: Stop) -> int:
    """The signal that the process of any device received; 0: none."""
    number = stop.signal or 0
    if fabric.world_size == 1:
        return number
    highest: Any = fabric.all_reduce(torch.tensor(float(number)), reduce_op="max")
    return int(highest.item())

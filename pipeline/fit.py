"""The training loop: what `train` and each trial of `search` run."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hsam
from pipeline.augment import augment, sample_seeds
from pipeline.console import steps
from pipeline.errors import UserError
from pipeline.files import atomic_path
from pipeline.params import Train
from pipeline.sampling import epoch_order
from pipeline.slice_dataset import SliceDataset, SliceLoader

STATE = "state.pt"
COLUMNS = (
    "epoch",
    "iteration",
    "learning_rate",
    "lambda",
    "train_loss",
    "train_loss_coarse",
    "train_loss_fine",
    "validation_dice",
)


@dataclass
class Progress:
    """How far a training is.

    Attributes:
        epoch: epochs done.
        history: one row of COLUMNS for each of them; None where nothing was measured.
        best: validation Dice and weights of the best epoch so far.
    """

    epoch: int = 0
    history: list[dict[str, float | None]] = field(default_factory=list)
    best: tuple[float, dict[str, Tensor]] | None = None


def build_model(settings: Train, organs: int, seed: int) -> hsam.SegmentationModel:
    """The model that the parameters describe, its new weights drawn from the seed.

    Raises:
        UserError: a SAM file that doesn't fit the backbone.
    """
    torch.manual_seed(seed)
    try:
        return hsam.build(
            settings.model,
            backbone=settings.backbone,
            image_size=settings.image_size,
            num_classes=organs,
            lora_rank=settings.lora_rank,
            sam_checkpoint=settings.sam_checkpoint,
            mask_attention=settings.mask_attention,
            pixel_decoder=settings.pixel_decoder,
            cm_attention=settings.cm_attention,
            gate=settings.gate,
            train_encoder=settings.train_encoder,
        )
    except ValueError as error:
        raise UserError(f"train: {error}.") from None


def fit(
    model: hsam.SegmentationModel,
    slices: SliceDataset,
    settings: Train,
    *,
    seed: int,
    device: str,
    validate: Callable[[hsam.SegmentationModel], float] | None,
    folder: Path | None,
    title: str = "train",
) -> Progress:
    """Train the model in place; with a folder, go on from the last whole epoch there.

    Every random choice of an epoch comes from the seed and the epoch's number, so a resumed
    training ends with the same weights as one that was never interrupted.

    Args:
        model: on any device; moved to `device`.
        slices: the training slices.
        settings: the `train` block.
        seed: `base.seed`.
        device: "cpu" or "cuda".
        validate: gives the validation Dice of a model in eval mode; None: no validation.
        folder: where the state of the training is kept after each epoch; None: nowhere.
        title: for the progress display.

    Returns:
        The finished training; the model holds the weights that `settings.keep` asks for.

    Raises:
        UserError: the loss is no finite number; says in which slices.

    Source: paper, supplementary A.1, tables 7 and 8.
    """
    model.to(device)
    optimizer = torch.optim.AdamW(
        model.trainable_parameters(),
        lr=settings.learning_rate,
        betas=(settings.betas[0], settings.betas[1]),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    progress = Progress() if folder is None else _resume(folder, model, optimizer, device)
    per_epoch = math.ceil(len(slices) / settings.batch_size)
    loader = SliceLoader(slices, settings.batch_size, settings.workers, device != "cpu")
    with steps(title, settings.epochs, progress.epoch) as bar:
        for epoch in range(progress.epoch, settings.epochs):
            row = _train_epoch(model, optimizer, loader, settings, seed, epoch, per_epoch, device)
            if validate is not None and _validates(settings, epoch):
                model.eval()
                row["validation_dice"] = validate(model)
                if progress.best is None or row["validation_dice"] > progress.best[0]:
                    progress.best = (row["validation_dice"], _trained(model))
            progress.epoch = epoch + 1
            progress.history.append(row)
            if folder is not None:
                _keep(folder, model, optimizer, progress)
            bar.advance(_note(row))
    if settings.keep == "best" and progress.best is not None:
        model.load_state_dict(progress.best[1], strict=False)
    return progress


def _train_epoch(
    model: hsam.SegmentationModel,
    optimizer: torch.optim.Optimizer,
    loader: SliceLoader,
    settings: Train,
    seed: int,
    epoch: int,
    per_epoch: int,
    device: str,
) -> dict[str, float | None]:
    torch.manual_seed(seed * 1_000_003 + epoch)
    weight = hsam.stage_weight(
        epoch,
        start=settings.lambda_start,
        end_at_zero=settings.lambda_end_at_zero,
        epochs=settings.epochs,
    )
    model.train()
    totals = torch.zeros(3, device=device)
    slices = loader.dataset
    order = epoch_order(len(slices), seed, epoch)
    for step, (images, labels, chosen) in enumerate(loader.epoch(order)):
        iteration = epoch * per_epoch + step
        rate = settings.learning_rate * hsam.lr_factor(
            iteration,
            settings.epochs * per_epoch,
            warmup=settings.warmup_iterations,
            power=settings.lr_power,
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, labels = augment(
            images.to(device, non_blocking=True),
            labels.to(device, non_blocking=True),
            settings.augment,
            sample_seeds(seed, epoch, chosen),
        )
        loss = hsam.two_stage_loss(
            model(images, labels.long()),
            labels.long(),
            weight,
            dice_weight=settings.dice_weight,
            second_loss=settings.second_loss,
        )
        if not torch.isfinite(loss.total):
            names = ", ".join(f"{case} slice {index}" for case, index in _names(slices, chosen))
            raise UserError(
                f"train: the loss is {loss.total.item()} at epoch {epoch}, in the batch of "
                f"{names}; lower train.learning_rate or look at these slices."
            )
        optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        optimizer.step()
        parts = (loss.total, loss.coarse.total, loss.fine.total)
        totals += torch.stack(parts).detach() * len(chosen)
    total, coarse, fine = (totals / len(slices)).tolist()
    values = (epoch, (epoch + 1) * per_epoch, rate, weight, total, coarse, fine, None)
    return dict(zip(COLUMNS, values, strict=True))


def _names(slices: SliceDataset, chosen: Tensor) -> list[tuple[str, int]]:
    return [slices.names[position] for position in chosen.tolist()]


def _validates(settings: Train, epoch: int) -> bool:
    every = settings.validate_every
    return every > 0 and ((epoch + 1) % every == 0 or epoch + 1 == settings.epochs)


def _trained(model: hsam.SegmentationModel) -> dict[str, Tensor]:
    """A copy of everything but the frozen encoder, on the CPU."""
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    return {
        name: value.detach().cpu().clone()
        for name, value in model.state_dict().items()
        if name not in frozen
    }


def _keep(
    folder: Path,
    model: hsam.SegmentationModel,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
) -> None:
    state: dict[str, Any] = {
        "model": _trained(model),
        "optimizer": optimizer.state_dict(),
        "epoch": progress.epoch,
        "history": progress.history,
        "best": progress.best,
    }
    with atomic_path(folder / STATE) as path:
        torch.save(state, path)


def _resume(
    folder: Path, model: hsam.SegmentationModel, optimizer: torch.optim.Optimizer, device: str
) -> Progress:
    path = folder / STATE
    if not path.exists():
        return Progress()
    state = torch.load(path, map_location=device, weights_only=True)
    model.load_state_dict(state["model"], strict=False)
    optimizer.load_state_dict(state["optimizer"])
    return Progress(state["epoch"], state["history"], state["best"])


def _note(row: dict[str, float | None]) -> str:
    dice = row["validation_dice"]
    validated = "" if dice is None else f"  validation Dice {dice:.3f}"
    return f"loss {row['train_loss']:.4f}  lr {row['learning_rate']:.2e}{validated}"

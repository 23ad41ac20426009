"""One optimizer step of a training, on one or several devices."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed
from lightning_fabric import Fabric
from torch import Tensor, nn

from hsam.losses import two_stage_loss
from hsam.model import EncodedModel, SegmentationModel
from pipeline.core.params.blocks import Train
from pipeline.training.augment import augment, sample_seeds
from pipeline.training.batches import Pass, Step

# b images (H, W) or (C, H, W), or embeddings (b, D, G, G), b labels, indices
Read = tuple[Any, Any, Tensor]


class _AllReduceSum(torch.autograd.Function):
    """Differentiable sum of a tensor over all processes, which compute the same loss from it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # the gradient is equal in all processes, and DDP takes the mean over them later
        return gradient * torch.distributed.get_world_size()


class Loss(nn.Module):
    """A model and its loss as one module, which DDP can wrap."""

    def __init__(self, model: SegmentationModel, settings: Train, devices: int = 1) -> None:
        """Join them; with several devices the loss is that of the slices of all devices."""
        super().__init__()
        self.network = torch.compile(model) if settings.compile else model
        self.image_size = model.image_size
        self.embedding = None  # (D, G, G) of what `images` hold instead, where they are cached
        if settings.cache_embeddings:
            assert isinstance(model, EncodedModel), "the parameters were checked"
            self.embedding = model.embedding_shape
        self.terms: dict[str, Any] = {
            "dice_weight": settings.dice_weight,
            "second_loss": settings.second_loss,
            "all_reduce": _AllReduceSum.apply if devices > 1 else None,
        }

    def forward(self, images: Tensor, labels: Tensor, weight: float, count: int) -> Tensor:
        """Loss of the first `count` slices of a batch.

        Args:
            images: (B, C, S, S) in [0, 1], or their embeddings (B, D, G, G).
            labels: (B, S, S) int64.
            weight: weight of the coarse stage, in [0, 1].
            count: from 0 to B; the other slices fill the batch up.

        Returns:
            (3,): total, coarse and fine loss; NaN for a stage that the model doesn't have.
        """
        if self.embedding is None:
            output = self.network(images, labels)
        else:
            output = self.network(None, labels, embedding=images)
        if count < len(images):
            output = output.first(count)
        loss = two_stage_loss(output, labels[:count], weight, **self.terms)
        none = torch.full_like(loss.total, torch.nan)
        stages = (none if stage is None else stage.total for stage in (loss.coarse, loss.fine))
        return torch.stack([loss.total, *stages])


class Average:
    """Exponential moving average of parameters.

    At step t: average = d * average + (1 - d) * parameter, d = min(decay, (1 + t) / (10 + t)).
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        """Start at the parameters' values; `decay` is in (0, 1)."""
        self.parameters = parameters
        self.decay = decay
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int, taken: Tensor | None = None) -> None:
        """Update the average with the parameters after step number `step`, from 0.

        Args:
            step: in the formula above, t.
            taken: 1, or 0 where the step was skipped, which leaves the average as it is; on the
                parameters' device, so that nobody waits for it. None: it wasn't skipped.
        """
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        parameters = [p.detach() for p in self.parameters]
        if taken is None:
            torch._foreach_lerp_(self.values, parameters, weight)
            return
        moves = torch._foreach_sub(parameters, self.values)
        torch._foreach_mul_(moves, weight * taken)
        torch._foreach_add_(self.values, moves)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside the block the parameters have the values of their averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def keep(self) -> None:
        """Set the parameters to their averages, at the end of a training."""
        self._swap()

    def load(self, values: list[Tensor]) -> None:
        """Copy the values of another average of the same parameters."""
        for mine, other in zip(self.values, values, strict=True):
            mine.copy_(other)

    def _swap(self) -> None:
        for index, parameter in enumerate(self.parameters):
            parameter.data, self.values[index] = self.values[index], parameter.data


@dataclass(frozen=True)
class Trainer:
    """Model, loss and optimizer of a training; `Trainer.make` builds it.

    Attributes:
        fabric: devices and precision.
        model: on its device.
        loss: the model and its loss, a module in Fabric's wrapper.
        optimizer: AdamW over the trained weights, in Fabric's wrapper.
        average: of the trained weights, or None.
        settings: the `train` block.
        seed: of the training, `Params.seed_of("train")`.
    """

    fabric: Fabric
    model: SegmentationModel
    loss: Any
    optimizer: Any
    average: Average | None
    settings: Train
    seed: int

    @classmethod
    def make(
        cls,
        fabric: Fabric,
        model: SegmentationModel,
        settings: Train,
        seed: int,
    ) -> "Trainer":
        """Move the model to fabric's device, and make its loss, optimizer and average.

        Source: paper, supplement A.1 and table 7 (AdamW).
        """
        model = model.to(fabric.device).train()
        loss = fabric.setup_module(Loss(model, settings, fabric.world_size))
        optimizer = torch.optim.AdamW(
            parameter_groups(model, settings),
            lr=settings.learning_rate,
            betas=(settings.betas[0], settings.betas[1]),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        average = None
        if settings.ema_decay is not None:
            average = Average(model.trainable_parameters(), settings.ema_decay)
        wrapped = fabric.setup_optimizers(optimizer)
        return cls(fabric, model, loss, wrapped, average, settings, seed)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside the block the model holds the moving average, where there is one."""
        return nullcontext() if self.average is None else self.average.applied()


def parameter_groups(model: SegmentationModel, settings: Train) -> list[dict[str, Any]]:
    """The trained parameters by their learning rates, for an optimizer.

    Returns:
        groups of `params` and the `factor` of their rate: what is trained in the encoder (its LoRA,
        or all of it), other parts that start from pretrained weights, and new parts; those that the
        model has.
    """
    factors = {"encoder": settings.encoder_rate, "pretrained": settings.pretrained_rate, "new": 1.0}
    groups: dict[str, list[nn.Parameter]] = {kind: [] for kind in factors}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            known = "pretrained" if name in model.pretrained else "new"
            groups["encoder" if name.startswith("image_encoder.") else known].append(parameter)
    return [
        {"params": parameters, "factor": factors[kind]}
        for kind, parameters in groups.items()
        if parameters
    ]


def training_step(
    trainer: Trainer, step: Step, read: Iterable[Read], rate: float, weight: float
) -> Tensor:
    """Augment, forward, backward and optimizer step, without waiting for the device.

    The gradient is the mean over the passes of the step, weighted by their numbers of slices.

    Args:
        trainer: model, loss and optimizer.
        step: from `Batches.steps`.
        read: b images (H, W) or (C, H, W) and b labels (H, W) of each pass, on the device, and
            their indices.
        rate: learning rate.
        weight: weight of the coarse stage, in [0, 1].

    Returns:
        (passes, 3) on the device: total, coarse and fine loss of each pass.
    """
    fabric, settings = trainer.fabric, trainer.settings
    for group in trainer.optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    trainer.optimizer.zero_grad(set_to_none=True)
    losses: list[Tensor] = []
    for part, (images, labels, _) in zip(step.passes, read, strict=False):
        batch, classes = _prepare(trainer, step.epoch, part, images, labels)
        more = len(losses) + 1 < len(step.passes)
        with fabric.no_backward_sync(trainer.loss, enabled=more and fabric.world_size > 1):
            values = trainer.loss(batch, classes, weight, part.count)
            fabric.backward(values[0] * part.share)
        losses.append(values.detach())
    if settings.clip_norm is not None:
        _clip(trainer, settings.clip_norm)
    if trainer.average is None:
        trainer.optimizer.step()
    elif _scaler(trainer) is None:
        trainer.optimizer.step()
        trainer.average.update(step.iteration)
    else:
        before = _steps_taken(trainer)
        trainer.optimizer.step()
        trainer.average.update(step.iteration, _steps_taken(trainer) - before)
    return torch.stack(losses)


def _scaler(trainer: Trainer) -> Any:
    """The gradient scaler of a training in float16; None in other precisions."""
    return getattr(trainer.fabric.strategy.precision, "scaler", None)


def _steps_taken(trainer: Trainer) -> Tensor:
    """How often AdamW has moved the weights, a copy on their device.

    A step whose scaled gradients are not finite is skipped there, without a word to the host.
    """
    one = next(p for p in trainer.model.trainable_parameters() if p.grad is not None)
    state = trainer.optimizer.optimizer.state.get(one)
    taken = state["step"] if state else torch.zeros((), device=one.device)
    return taken.clone()


def _clip(trainer: Trainer, norm: float) -> None:
    """Clip the gradient to a norm, without waiting for the device.

    Fabric's clipping refuses fused optimizers in float16, whose gradients are scaled. Here the norm
    is scaled as well.
    """
    bound = torch.full((), norm, device=trainer.fabric.device)
    if (scaler := _scaler(trainer)) is not None:
        bound = scaler.scale(bound)
    gradients = [p.grad for p in trainer.model.trainable_parameters() if p.grad is not None]
    whole = torch.nn.utils.get_total_norm(gradients)
    torch._foreach_mul_(gradients, (bound / whole).clamp(max=1))


def _prepare(
    trainer: Trainer,
    epoch: int,
    part: Pass,
    images: Any,
    labels: Any,
) -> tuple[Tensor, Tensor]:
    if trainer.settings.cache_embeddings:  # embeddings, augmented before
        batch, classes = torch.as_tensor(images).float(), torch.as_tensor(labels)
    else:
        batch, classes = augment(
            images,
            labels,
            trainer.settings.augment,
            sample_seeds(trainer.seed, epoch, part.places),
            trainer.settings.image_size,
        )
    # the model's noise and dropout are equal after an interruption, and differ between devices
    torch.manual_seed(part.seed)
    return batch, classes.long()

"""Losses of the two stages.

Source: paper, supplement A.1 and table 8.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hsam.output import Segmentation

SECOND_LOSSES = ("cross_entropy", "mse")
SMOOTH = 1e-5


class StageLoss(NamedTuple):
    """Scalars: the weighted sum and its two terms."""

    total: Tensor
    dice: Tensor
    second: Tensor


class TwoStageLoss(NamedTuple):
    """Scalar total, and the parts of each stage (None where the model has no such stage)."""

    total: Tensor
    coarse: StageLoss | None
    fine: StageLoss | None


def one_hot(labels: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, H, W) integers in [0, C) -> (B, C, H, W) of zeros and ones."""
    index = torch.arange(classes, device=labels.device).view(1, -1, 1, 1)
    return (labels.unsqueeze(1) == index).to(dtype)


def _dice_sums(probability: Tensor, truth: Tensor) -> Tensor:
    """(2, C): overlap and size of each class, over batch and pixels."""
    over = (0, 2, 3)
    overlap = (probability * truth).sum(over)
    size = probability.square().sum(over) + truth.sum(over)  # truth is its own square
    return torch.stack([overlap, size])


def _dice(sums: Tensor) -> Tensor:
    overlap, size = sums.unbind()
    return (1 - (2 * overlap + SMOOTH) / (size + SMOOTH)).mean()


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over all classes, background included, of 1 - soft Dice.

    Each class's term is 1 - (2 sum(p t) + 1e-5) / (sum(p^2) + sum(t^2) + 1e-5), the sums over
    batch and pixels, p the softmax over classes.

    Args:
        logits: (B, C, H, W), floating.
        labels: (B, H, W), integer, in [0, C).

    Returns:
        scalar in [0, 1], float32 or wider.

    Raises:
        ValueError: shapes that don't belong together.

    Source: paper, supplement A.1.
    """
    _check(logits, labels)
    logits = _widen(logits)
    truth = one_hot(labels, logits.shape[1], logits.dtype)
    return _dice(_dice_sums(logits.softmax(dim=1), truth))


def stage_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    dice_weight: float = 0.9,
    second_loss: str = "cross_entropy",
    over_all: Callable[[Tensor], Tensor] | None = None,
) -> StageLoss:
    """dice_weight * Dice + (1 - dice_weight) * second loss.

    Args:
        logits: (B, C, H, W), floating.
        labels: (B, H, W), integer, in [0, C).
        dice_weight: in [0, 1].
        second_loss: "cross_entropy" (the paper's symbol, and the published H-SAM code), or "mse"
            between softmax and one-hot labels (the paper's text).
        over_all: adds a vector of sums up over the processes that share a batch, differentiably;
            then the loss is that of the whole batch, and B may be 0 here. None: one process.

    Raises:
        ValueError: shapes that don't belong together, an unknown loss, a weight out of range.

    Source: paper, supplement A.1 and table 8.
    """
    _check(logits, labels)
    if second_loss not in SECOND_LOSSES:
        raise ValueError(f"second_loss: expected one of {SECOND_LOSSES}, got {second_loss!r}")
    if not 0 <= dice_weight <= 1:
        raise ValueError(f"dice_weight: expected a number from 0 to 1, got {dice_weight!r}")
    log_probability = _widen(logits).log_softmax(dim=1)
    probability = log_probability.exp()
    truth = one_hot(labels, logits.shape[1], probability.dtype)
    dice_sums = _dice_sums(probability, truth)
    if second_loss == "cross_entropy":
        second_sum = F.nll_loss(log_probability, labels.long(), reduction="sum")
        count = labels.numel()
    else:
        second_sum, count = (probability - truth).square().sum(), truth.numel()
    second_sums = torch.stack([second_sum, torch.full_like(second_sum, count)])
    if over_all is not None:
        dice_sums, second_sums = over_all(torch.cat([dice_sums.flatten(), second_sums])).split(
            [dice_sums.numel(), 2]
        )
        dice_sums = dice_sums.unflatten(0, (2, -1))
    dice, second = _dice(dice_sums), second_sums[0] / second_sums[1]
    return StageLoss(dice_weight * dice + (1 - dice_weight) * second, dice, second)


def two_stage_loss(
    output: Segmentation,
    labels: Tensor,
    weight: float = 0.5,
    *,
    dice_weight: float = 0.9,
    second_loss: str = "cross_entropy",
    over_all: Callable[[Tensor], Tensor] | None = None,
) -> TwoStageLoss:
    """weight * coarse loss + (1 - weight) * fine loss; a one-stage model's only loss as it is.

    Coarse logits are compared with labels resized to S/4 by nearest neighbour.

    Args:
        output: what a model returned.
        labels: (B, S, S), integer, in [0, C).
        weight: share of the coarse stage, in [0, 1]; `hsam.stage_weight(epoch)`.
        dice_weight, second_loss, over_all: as in `stage_loss`.

    Raises:
        ValueError: as `stage_loss`, or a weight out of range.

    Source: paper, supplement A.1 and table 8.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight: expected a number from 0 to 1, got {weight!r}")
    loss = partial(stage_loss, dice_weight=dice_weight, second_loss=second_loss, over_all=over_all)
    coarse = fine = None
    if output.coarse_logits is not None:
        height, width = output.coarse_logits.shape[-2:]
        coarse = loss(output.coarse_logits, resize_labels(labels, (height, width)))
    if output.fine_logits is not None:
        fine = loss(output.fine_logits, labels)
    if coarse is not None and fine is not None:
        return TwoStageLoss(weight * coarse.total + (1 - weight) * fine.total, coarse, fine)
    only = fine if coarse is None else coarse
    if only is None:
        raise ValueError("output: expected coarse or fine logits, got neither")
    return TwoStageLoss(only.total, coarse, fine)


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Nearest-neighbour labels: (B, H, W) integers -> (B, *size), the same dtype."""
    # class indices are exact in float32, and interpolate takes no integers
    small = F.interpolate(labels.unsqueeze(1).float(), size=tuple(size), mode="nearest")
    return small.squeeze(1).to(labels.dtype)


def _widen(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _check(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 4 or labels.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(
            "expected logits (B, C, H, W) and labels (B, H, W), "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if labels.is_floating_point():
        raise TypeError(f"labels: expected an integer dtype, got {labels.dtype}")

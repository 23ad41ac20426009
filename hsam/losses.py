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
    """Loss of one stage; all are scalars.

    Attributes:
        total: weighted sum of the two terms.
        dice: Dice loss.
        second: cross entropy or mean squared error.
    """

    total: Tensor
    dice: Tensor
    second: Tensor


class TwoStageLoss(NamedTuple):
    """Loss of both stages.

    Attributes:
        total: scalar, the weighted sum of the stages.
        coarse: loss of stage 1; None: the model has no such stage.
        fine: loss of stage 2; None: the model has no such stage.
    """

    total: Tensor
    coarse: StageLoss | None
    fine: StageLoss | None


def one_hot(labels: Tensor, classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, H, W) integers in [0, C) -> (B, C, H, W) of zeros and ones."""
    index = torch.arange(classes, device=labels.device).view(1, -1, 1, 1)
    return (labels.unsqueeze(1) == index).to(dtype)


def _dice_sums(probability: Tensor, truth: Tensor) -> Tensor:
    """sum(p t) and sum(p^2) + sum(t^2) of each class over batch and pixels: (2, C)."""
    dims = (0, 2, 3)
    overlap = (probability * truth).sum(dims)
    size = probability.square().sum(dims) + truth.sum(dims)  # t^2 = t, as t is 0 or 1
    return torch.stack([overlap, size])


def _dice(sums: Tensor) -> Tensor:
    """Dice loss from `_dice_sums`, a scalar."""
    overlap, size = sums.unbind()
    return (1 - (2 * overlap + SMOOTH) / (size + SMOOTH)).mean()


def dice_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Soft Dice loss, the mean over all classes, background included.

    Of each class it is 1 - (2 sum(p t) + 1e-5) / (sum(p^2) + sum(t^2) + 1e-5), where p is the
    softmax of the logits, t the one-hot label, and the sums are over batch and pixels.

    Args:
        logits: (B, C, H, W), floating.
        labels: (B, H, W), integer, in [0, C).

    Returns:
        scalar in [0, 1], float32 or float64.

    Raises:
        ValueError: logits and labels of shapes that don't match.
        TypeError: floating labels.

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
    all_reduce: Callable[[Tensor], Tensor] | None = None,
) -> StageLoss:
    """Loss of one stage: dice_weight * Dice loss + (1 - dice_weight) * second loss.

    Args:
        logits: (B, C, H, W), floating.
        labels: (B, H, W), integer, in [0, C).
        dice_weight: in [0, 1].
        second_loss: "cross_entropy" (the paper's symbol, and the published H-SAM code), or "mse"
            between softmax and one-hot labels (the paper's text).
        all_reduce: differentiable sum of a vector over all processes of a distributed training;
            the loss is then that of their batches together, and B may be 0 in this process.
            None: a single process.

    Raises:
        ValueError: shapes that don't match, an unknown second loss, or a weight out of range.
        TypeError: floating labels.

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
    if all_reduce is not None:
        dice_sums, second_sums = all_reduce(torch.cat([dice_sums.flatten(), second_sums])).split(
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
    all_reduce: Callable[[Tensor], Tensor] | None = None,
) -> TwoStageLoss:
    """Loss of a model: weight * coarse loss + (1 - weight) * fine loss.

    Labels are resized to the coarse logits' side by nearest neighbour. The loss of a model with one
    stage is the loss of that stage.

    Args:
        output: a model's output.
        labels: (B, S, S), integer, in [0, C).
        weight: weight of the coarse stage, in [0, 1], such as `hsam.stage_weight(epoch)`.
        dice_weight, second_loss, all_reduce: as in `stage_loss`.

    Raises:
        ValueError: as in `stage_loss`, a weight out of range, or an output without logits.
        TypeError: floating labels.

    Source: paper, supplement A.1 and table 8.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight: expected a number from 0 to 1, got {weight!r}")
    loss = partial(
        stage_loss, dice_weight=dice_weight, second_loss=second_loss, all_reduce=all_reduce
    )
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
    """Resize labels by nearest neighbour: (B, H, W), integer -> (B, H', W'), of the same dtype.

    Args:
        labels: (B, H, W), integer.
        size: (H', W').
    """
    # interpolate takes no integers; float32 holds class indices exactly
    small = F.interpolate(labels.unsqueeze(1).float(), size=tuple(size), mode="nearest")
    return small.squeeze(1).to(labels.dtype)


def _widen(logits: Tensor) -> Tensor:
    """Logits in float32, or in float64 if they are."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _check(logits: Tensor, labels: Tensor) -> None:
    """Raise a ValueError or TypeError where shapes or the labels' dtype are wrong."""
    if logits.ndim != 4 or labels.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(
            "expected logits (B, C, H, W) and labels (B, H, W), "
            f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
        )
    if labels.is_floating_point():
        raise TypeError(f"labels: expected an integer dtype, got {labels.dtype}")

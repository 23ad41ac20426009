"""Schedules of a training: weight of stage 1 in the loss, and learning rate.

Source: paper, supplement A.1, tables 7 and 8.
"""


def stage_weight(
    epoch: float,
    *,
    start: float = 0.4,
    decay: float = 0.99,
    end_at_zero: bool = False,
    epochs: int = 300,
) -> float:
    """Weight of the coarse stage in the loss: 1 - (1 - start)^(decay^epoch).

    Args:
        epoch: from 0.
        start: weight at epoch 0, in [0, 1).
        decay: base of the exponential decay, in (0, 1).
        end_at_zero: rescale the curve linearly to be `start` at epoch 0 and exactly 0 at the last
            epoch, epochs - 1. Without it the weight is 0.025 at epoch 299.
        epochs: epochs of the training; used with `end_at_zero` only.

    Returns:
        weight in [0, 1).

    Raises:
        ValueError: an argument out of range.

    Source: paper, supplement A.1 (exponential decay from 0.4 to 0), and the published H-SAM code.
    """
    if not 0 <= start < 1:
        raise ValueError(f"start: expected a number from 0 to below 1, got {start!r}")
    if not 0 < decay < 1:
        raise ValueError(f"decay: expected a number between 0 and 1, got {decay!r}")
    if epoch < 0:
        raise ValueError(f"epoch: expected a number from 0, got {epoch!r}")

    def curve(at: float) -> float:
        return float(1 - (1 - start) ** (decay**at))

    if not end_at_zero:
        return curve(epoch)
    last = epochs - 1
    if epochs < 1 or epoch > last:
        raise ValueError(f"epoch: expected 0 to {last} of {epochs} epochs, got {epoch!r}")
    if epoch == last or start == 0:
        return 0.0
    return start * (curve(epoch) - curve(last)) / (start - curve(last))


def lr_factor(iteration: int, total: int, *, warmup: int = 250, power: float = 0.9) -> float:
    """Factor of the learning rate: linear warm-up, then polynomial decay.

    It is (iteration + 1) / warmup while iteration < warmup, and
    (1 - (iteration - warmup) / total)^power from then on.

    Args:
        iteration: optimizer step, from 0 to total - 1.
        total: steps of the training, warm-up included.
        warmup: steps of the warm-up; 0: none.
        power: exponent of the decay.

    Returns:
        factor in (0, 1].

    Raises:
        ValueError: an argument out of range.

    Source: paper, supplement table 7, and the published H-SAM code.
    """
    if not 0 <= iteration < total:
        raise ValueError(f"iteration: expected 0 to {total - 1}, got {iteration!r}")
    if warmup < 0:
        raise ValueError(f"warmup: expected a number from 0, got {warmup!r}")
    if iteration < warmup:
        return (iteration + 1) / warmup
    return float((1 - (iteration - warmup) / total) ** power)

"""The order of the slices in an epoch, and weights that bring rare organs up more often.

Pure functions of their arguments. The raw numbers of Philox are fixed by its definition, so an
order is the same under every version of NumPy.
"""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def rare_organ_weights(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weight of each slice: the largest of sqrt(f_max / f_k) over the organs k that it shows.

    f_k is the share of the slices that show organ k, f_max that of the commonest organ. Slices
    with the commonest organ alone, or with none, weigh 1. The square root is that of repeat factor
    sampling (Gupta, Dollár, Girshick, "LVIS", CVPR 2019, section 4.2), with f_max as threshold.

    Args:
        counts: (N, classes) pixels of each class in every slice, the background first.

    Returns:
        (N,) weights, 1 or more.
    """
    shown = counts[:, 1:] > 0  # N x organs
    share = shown.mean(0)
    if not share.any():
        return np.ones(len(counts))
    factors = np.sqrt(share.max() / np.where(share > 0, share, np.inf))
    return np.maximum(1.0, np.where(shown, factors, 0.0).max(1))


def epoch_order(
    n: int, seed: int, epoch: int, weights: NDArray[np.float64] | None = None
) -> Tensor:
    """The dataset indices of an epoch, in order, (n,) int64.

    Without weights every index comes once. With weights index i comes n * w_i / sum(w) times on
    average, rounded down or up at random (systematic sampling).

    Args:
        n: number of slices in the training set.
        seed: of the training, `Params.seed_of("train")`.
        epoch: from 0.
        weights: (n,), positive, such as `rare_organ_weights`; None: every slice once.
    """
    key = hashlib.sha256(f"epoch {epoch} {seed}".encode()).digest()[:16]
    numbers = np.random.Philox(key=np.frombuffer(key, "<u8")).random_raw(2 * n + 1)
    shuffled = np.argsort(numbers[:n], kind="stable")
    if weights is None:
        return torch.from_numpy(shuffled)
    offset = (numbers[-1] >> np.uint64(11)) / 2**53  # in [0, 1)
    edges = np.cumsum(weights[shuffled]) * (n / weights.sum())
    # without the last edge, which is n up to rounding
    drawn = shuffled[np.searchsorted(edges[:-1], np.arange(n) + offset, side="right")]
    return torch.from_numpy(drawn[np.argsort(numbers[n : 2 * n], kind="stable")])

"""CMAttn: class-balanced, mask-guided attention, which weighs the positions of the image.

Source: paper section 3, CMAttn.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hsam import sam
from hsam.noise import dropout, gaussian

# standard deviations of the noise by a class's rank in the batch, rarest first (paper section 3)
NOISE_STD = (0.35, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.0, 0.0)

GATES = ("spatial", "constant")
LARGEST_GRID = 32  # SAM's at 512 px; the attention's weights grow with the fourth power of it


def gate_pooling(grid: int) -> int:
    """The smallest divisor of the side G that brings it to `LARGEST_GRID` or below."""
    return next(n for n in range(1, grid + 1) if grid % n == 0 and grid <= n * LARGEST_GRID)


def attention_heads(features: int, most: int = 8) -> int:
    """The largest number of heads, at most `most`, that divides the number of features."""
    return next(heads for heads in range(most, 0, -1) if features % heads == 0)


def class_noise_std(
    labels: Tensor, grid: int, classes: int, std: Sequence[float] = NOISE_STD
) -> Tensor:
    """Standard deviation of the noise at each position of the grid: larger for rarer classes.

    The classes in the batch are ranked by their number of positions, fewest first, equal ones by
    class index. The class of rank k gets std[k]; ranks past the end of `std` get its last value.

    Args:
        labels: (B, H, W), integer class indices in [0, C).
        grid: side G of the grid; labels are resized to it by nearest neighbour.
        classes: number of classes C.
        std: standard deviations by rank.

    Returns:
        (B, N), float32, N = G * G.
    """
    # nearest works on floats; class indices are exact in float32
    small = F.interpolate(labels.unsqueeze(1).float(), size=(grid, grid), mode="nearest")
    small = small.flatten(1).long()
    # no shape depends on the labels, as reading one from a GPU would wait for it
    index = torch.arange(classes, device=labels.device)
    counts = (small.unsqueeze(-1) == index).sum((0, 1))
    counts = torch.where(counts > 0, counts, small.numel() + 1)  # absent classes come last
    rank = torch.empty_like(counts)
    rank[counts.argsort(stable=True)] = index
    levels = torch.tensor(std, dtype=torch.float32).to(labels.device, non_blocking=True)
    return levels[rank.clamp(max=len(std) - 1)][small]  # B x N


def class_noise(
    prior: Tensor,
    labels: Tensor,
    std: Sequence[float] = NOISE_STD,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Class-balanced noise around the mean of the prior.

    Args:
        prior: (B, C, N), as `ClassBalancedMaskAttention` takes it.
        labels: (B, S, S), integer ground truth.
        std: standard deviations of the noise, as in `class_noise_std`.
        generator: random number generator; None: PyTorch's global one.

    Returns:
        (B, C, N), without a gradient.
    """
    prior = prior.detach()
    grid = round(prior.shape[-1] ** 0.5)
    levels = class_noise_std(labels, grid, prior.shape[1], std).to(prior.dtype).unsqueeze(1)
    return prior.mean() + levels * gaussian(prior, generator)


class ClassBalancedMaskAttention(nn.Module):
    """Self attention among the classes, each a vector of N positions, and a gate per position.

    Attributes:
        gate: "spatial": a softmax over the positions, times N, so its mean is 1. "constant": 1
            everywhere, as in the published H-SAM code; the module's weights have no effect then.
    """

    def __init__(
        self,
        classes: int,
        grid: int,
        mlp_dim: int,
        gate: str = "spatial",
        dropout_rate: float = 0.1,
        noise_std: Sequence[float] = NOISE_STD,
        pooling: int = 1,
    ) -> None:
        """Build the attention.

        Args:
            classes: number of classes C, background included.
            grid: side G of the embedding.
            mlp_dim: hidden width of the MLP.
            gate: one of `GATES`.
            dropout_rate: dropout of the input in training.
            noise_std: standard deviations of the noise, as in `class_noise_std`.
            pooling: positions along a side that share a gate, a divisor of G.

        Raises:
            ValueError: unknown gate.
        """
        super().__init__()
        if gate not in GATES:
            raise ValueError(f"gate: expected one of {GATES}, got {gate!r}")
        self.gate = gate
        self.dropout_rate = dropout_rate
        self.noise_std = tuple(noise_std)
        self.grid, self.pooling = grid, pooling
        positions = (grid // pooling) ** 2
        heads = attention_heads(positions)
        self.self_attn = sam.DecoderAttention(positions, heads)
        self.norm1 = nn.LayerNorm(positions)
        self.self_attn2 = sam.DecoderAttention(positions, heads)
        self.mlp = sam.MLPBlock(positions, mlp_dim)
        self.norm2 = nn.LayerNorm(positions)
        self.select = nn.Linear(classes, 1)

    def forward(
        self,
        prior: Tensor,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Compute the gate of each position.

        Args:
            prior: (B, C, N), dot products of stage 1's mask tokens with its image features.
            labels: (B, S, S), integer ground truth for the class-balanced noise; used in training
                only. None: no noise.
            generator: random number generator for dropout and noise.

        Returns:
            (B, N), from 0, with mean 1 over the positions.
        """
        if self.gate == "constant":
            return prior.new_ones(prior.shape[0], prior.shape[-1])
        if self.pooling > 1:
            square = prior.unflatten(2, (self.grid, self.grid))
            prior = F.avg_pool2d(square, self.pooling).flatten(2)
        if self.training:
            prior = dropout(prior, self.dropout_rate, generator)
            if labels is not None:
                prior = prior + class_noise(prior, labels, self.noise_std, generator)
        x = self.norm1(self.self_attn(prior, prior, prior))
        x = self.self_attn2(x, x, x)
        x = self.norm2(x + self.mlp(x))
        gate = torch.relu(self.select(x.transpose(1, 2)).squeeze(-1))  # B x N x C -> B x N
        gate = torch.softmax(gate, dim=-1) * gate.shape[-1]
        return gate if self.pooling == 1 else self._enlarged(gate)

    def _enlarged(self, gate: Tensor) -> Tensor:
        """The gate at each position of the grid, of which a pooled one covers several."""
        side = self.grid // self.pooling
        square = gate.unflatten(1, (side, side))
        for dim in (1, 2):
            square = square.repeat_interleave(self.pooling, dim)
        enlarged: Tensor = square.flatten(1)
        return enlarged

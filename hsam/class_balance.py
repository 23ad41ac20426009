"""CMAttn: class-balanced, mask-guided self attention, and the gate it puts on the image.

Source: paper section 3, CMAttn.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hsam import sam
from hsam.noise import dropout, gaussian

# std of the noise, from the rarest class of a batch to more frequent ones (paper section 3)
NOISE_STD = (0.35, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.0, 0.0)

GATES = ("spatial", "constant")


def attention_heads(features: int, most: int = 8) -> int:
    """The largest number of heads up to `most` that divides the feature size."""
    return next(heads for heads in range(most, 0, -1) if features % heads == 0)


def class_noise_std(
    labels: Tensor, grid: int, classes: int, std: Sequence[float] = NOISE_STD
) -> Tensor:
    """Noise level at each position of the grid: high where the rare classes are.

    Classes present in the batch are ranked by their number of positions, rarest first, ties by
    class index; the k-th of them gets the k-th level. More classes than levels share the last one.

    Args:
        labels: class indices, integer, (B, H, W), in [0, C).
        grid: side G of the grid; labels are brought to it by nearest neighbour.
        classes: C.
        std: levels, rarest class first.

    Returns:
        (B, N), float32, N = G * G.
    """
    # nearest works on floats; class indices are exact in float32
    small = F.interpolate(labels.unsqueeze(1).float(), size=(grid, grid), mode="nearest")
    small = small.flatten(1).long()
    # all of fixed size, so that a GPU needn't be waited for
    index = torch.arange(classes, device=labels.device)
    counts = (small.unsqueeze(-1) == index).sum((0, 1))
    counts = torch.where(counts > 0, counts, small.numel() + 1)  # absent classes come last
    rank = torch.empty_like(counts)
    rank[counts.argsort(stable=True)] = index
    levels = torch.tensor(std, dtype=torch.float32).to(labels.device, non_blocking=True)
    return levels[rank.clamp(max=len(std) - 1)][small]  # B x N


class ClassBalancedMaskAttention(nn.Module):
    """Self attention between the classes' spatial responses, ending in one gate per position.

    Attributes:
        gate: "spatial" normalises the gate over positions to mean 1. "constant" makes it 1
            everywhere, as the published H-SAM code does; then none of the weights matters.
    """

    def __init__(
        self,
        classes: int,
        positions: int,
        mlp_dim: int,
        gate: str = "spatial",
        dropout_rate: float = 0.1,
        noise_std: Sequence[float] = NOISE_STD,
    ) -> None:
        """Build for `classes` tokens whose features are `positions` = N spatial responses.

        Raises:
            ValueError: unknown gate.
        """
        super().__init__()
        if gate not in GATES:
            raise ValueError(f"gate: expected one of {GATES}, got {gate!r}")
        self.gate = gate
        self.dropout_rate = dropout_rate
        self.noise_std = tuple(noise_std)
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
        """Weigh the positions of the grid.

        Args:
            prior: prior features P of stage 1, (B, C, N), N = G * G.
            labels: ground truth, integer, (B, S, S); it places noise in training only.
            generator: source of dropout and noise.

        Returns:
            gate, (B, N): non-negative with mean 1 over the positions.
        """
        batch, _, positions = prior.shape
        if self.gate == "constant":
            return prior.new_ones(batch, positions)
        if self.training:
            prior = dropout(prior, self.dropout_rate, generator)
            if labels is not None:
                prior = prior + self._noise(prior, labels, generator)
        x = self.norm1(self.self_attn(prior, prior, prior))
        x = self.self_attn2(x, x, x)
        x = self.norm2(x + self.mlp(x))
        gate = torch.relu(self.select(x.transpose(1, 2)).squeeze(-1))  # B x N x C -> B x N
        return torch.softmax(gate, dim=-1) * positions

    def _noise(self, prior: Tensor, labels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Class-balanced noise, B x C x N: mean of the prior, std by the class of a position."""
        prior = prior.detach()
        grid = round(prior.shape[-1] ** 0.5)
        std = (
            class_noise_std(labels, grid, prior.shape[1], self.noise_std)
            .to(prior.dtype)
            .unsqueeze(1)
        )
        return prior.mean() + std * gaussian(prior, generator)

"""LoRA of the query and value projections.

q = W_q x + scale * B_q A_q x and v = W_v x + scale * B_v A_v x; k = W_k x as before.
Source: paper section 3 and table 10; LoRA, arXiv 2106.09685.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LoRA(nn.Linear):
    """A linear layer for q, k and v at once, with a low-rank update of q and v.

    Weight and bias have the names and shapes of the plain layer's, so its checkpoints load here.

    Attributes:
        a_q, a_v: (rank, dim), initialised Kaiming-uniform with a = sqrt(5).
        b_q, b_v: (dim, rank), initialised to zero, so that the update starts as zero.
        merged: whether the weight includes the update.
    """

    _plain: Tensor | None

    def __init__(self, qkv: nn.Linear, rank: int, scale: float = 1.0) -> None:
        """Take the parameters of `qkv` and add an update.

        Args:
            qkv: linear layer from dim to 3 dim, for q, k and v in that order.
            rank: from 1 to dim.
            scale: factor of the update.

        Raises:
            ValueError: rank out of range, or a layer that isn't from dim to 3 dim.
        """
        dim = qkv.in_features
        if qkv.out_features != 3 * dim:
            raise ValueError(f"qkv: expected {dim} -> {3 * dim}, got {dim} -> {qkv.out_features}")
        check_rank(rank, dim, lowest=1)
        nn.Module.__init__(self)  # not Linear's, which would draw a new weight
        self.in_features, self.out_features = dim, 3 * dim
        self.weight, self.bias = qkv.weight, qkv.bias
        self.rank, self.scale, self.merged = rank, scale, False
        # while merged, the weight without the update
        self.register_buffer("_plain", None, persistent=False)
        self.a_q = nn.Parameter(qkv.weight.new_empty(rank, dim))
        self.a_v = nn.Parameter(qkv.weight.new_empty(rank, dim))
        self.b_q = nn.Parameter(qkv.weight.new_zeros(dim, rank))
        self.b_v = nn.Parameter(qkv.weight.new_zeros(dim, rank))
        for a in (self.a_q, self.a_v):
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., 3 dim)."""
        qkv = super().forward(x)
        return qkv if self.merged else qkv + F.linear(F.linear(x, self._a()), self._b())

    def _a(self) -> Tensor:
        """A_q above A_v: (2 rank, dim)."""
        return torch.cat([self.a_q, self.a_v])

    def _b(self) -> Tensor:
        """B_q and B_v as blocks of a (3 dim, 2 rank) matrix, whose rows for k are 0, scaled."""
        dim, rank = self.in_features, self.rank
        b_q = F.pad(self.b_q, (0, rank, 0, 2 * dim))
        b_v = F.pad(self.b_v, (rank, 0, 2 * dim, 0))
        return self.scale * (b_q + b_v)

    def delta(self) -> Tensor:
        """The update of the weight, (3 dim, dim): scale * (B_q A_q, 0, B_v A_v)."""
        return self._b() @ self._a()

    @torch.no_grad()
    def merge(self) -> None:
        """Add the update to the weight, unless that is done."""
        if not self.merged:
            self._plain = self.weight.detach()
            self.weight.data = self._plain + self.delta()
            self.merged = True

    @torch.no_grad()
    def unmerge(self) -> None:
        """Restore the weight without the update, bit for bit."""
        if self._plain is not None:
            self.weight.data, self._plain = self._plain, None
            self.merged = False

    def train(self, mode: bool = True) -> "LoRA":
        """Set the mode; training unmerges, as a merged update would get no gradient."""
        if mode:
            self.unmerge()
        return super().train(mode)


def check_rank(rank: int, dim: int, lowest: int = 0) -> None:
    """Raise a ValueError unless `rank` is an integer from `lowest` to `dim`."""
    if isinstance(rank, bool) or not isinstance(rank, int) or not lowest <= rank <= dim:
        raise ValueError(f"lora_rank: expected an integer from {lowest} to {dim}, got {rank!r}")


def add_lora(encoder: nn.Module, rank: int, scale: float = 1.0) -> None:
    """Replace `attn.qkv` of every block of an image encoder by a LoRA.

    Raises:
        ValueError: rank out of range.
    """
    blocks: Any = encoder.blocks
    for block in blocks:
        block.attn.qkv = LoRA(block.attn.qkv, rank, scale)


def lora_layers(model: nn.Module) -> Iterator[LoRA]:
    """Every LoRA of a model, in block order."""
    return (module for module in model.modules() if isinstance(module, LoRA))


def merge_lora(model: nn.Module) -> None:
    """Merge every LoRA of a model: the same function, computed faster."""
    for layer in lora_layers(model):
        layer.merge()


def unmerge_lora(model: nn.Module) -> None:
    """Undo `merge_lora`."""
    for layer in lora_layers(model):
        layer.unmerge()

"""LoRA of the query and value projections.

q = W_q x + scale * B_q A_q x and v = W_v x + scale * B_v A_v x; k = W_k x as before.
Source: paper section 3 and table 10; LoRA, arXiv 2106.09685.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hsam.encoders.base import ImageEncoder

ADAPTED = ("q", "v")  # parts of an attention's projection that get an update


class LoRA(nn.Linear):
    """A linear layer with a low-rank update of its queries and values, whichever it has.

    Weight and bias have the names and shapes of the plain layer's, so its checkpoints load here.

    Attributes:
        a_q, a_v: (rank, dim), initialised Kaiming-uniform with a = sqrt(5).
        b_q, b_v: (outputs of a part, rank), initialised to zero, so that the update starts as zero.
        merged: whether the weight includes the update.
    """

    _plain: Tensor | None
    _order: Tensor | None

    def __init__(
        self,
        linear: nn.Linear,
        rank: int,
        scale: float = 1.0,
        parts: tuple[str, ...] = ("q", "k", "v"),
        order: Tensor | None = None,
    ) -> None:
        """Take the parameters of `linear` and add an update.

        Args:
            linear: linear layer, for q, k and v at once or for one of them.
            rank: from 1 to the layer's number of inputs.
            scale: factor of the update.
            parts, order: as in `hsam.encoders.base.Projection`; "q" and "v" get an update.

        Raises:
            ValueError: rank out of range, or outputs that aren't as many for each part.
        """
        dim, outputs = linear.in_features, linear.out_features
        if outputs % len(parts):
            raise ValueError(f"linear: expected outputs for {parts} alike, got {dim} -> {outputs}")
        check_rank(rank, dim, lowest=1)
        nn.Module.__init__(self)  # not Linear's, which would draw a new weight
        self.in_features, self.out_features = dim, outputs
        self.weight, self.bias = linear.weight, linear.bias
        self.rank, self.scale, self.merged = rank, scale, False
        self.parts, self.adapted = parts, [part for part in parts if part in ADAPTED]
        # while merged, the weight without the update
        self.register_buffer("_plain", None, persistent=False)
        self.register_buffer("_order", order, persistent=False)
        for part in self.adapted:
            self.register_parameter(f"a_{part}", nn.Parameter(linear.weight.new_empty(rank, dim)))
        for part in self.adapted:
            b = linear.weight.new_zeros(outputs // len(parts), rank)
            self.register_parameter(f"b_{part}", nn.Parameter(b))
        for part in self.adapted:
            nn.init.kaiming_uniform_(self.get_parameter(f"a_{part}"), a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., outputs)."""
        plain = super().forward(x)
        return plain if self.merged else plain + F.linear(F.linear(x, self._a()), self._b())

    def _a(self) -> Tensor:
        """The a of all adapted parts, one above the other: (adapted parts * rank, dim)."""
        return torch.cat([self.get_parameter(f"a_{part}") for part in self.adapted])

    def _b(self) -> Tensor:
        """The b as blocks of an (outputs, adapted parts * rank) matrix of zeros, scaled."""
        total: Tensor | None = None
        for column, part in enumerate(self.adapted):
            b = self.get_parameter(f"b_{part}")
            above = self.parts.index(part) * len(b)
            left = column * self.rank
            right = (len(self.adapted) - 1 - column) * self.rank
            block = F.pad(b, (left, right, above, self.out_features - above - len(b)))
            total = block if total is None else total + block
        assert total is not None, "a layer without a part to adapt is refused"
        return self.scale * (total if self._order is None else total[self._order])

    def delta(self) -> Tensor:
        """The update of the weight, (outputs, dim): scale * (B_q A_q, 0, B_v A_v) of q, k, v."""
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


def add_lora(encoder: ImageEncoder, rank: int, scale: float = 1.0) -> None:
    """Replace each projection of an image encoder by a LoRA.

    Raises:
        ValueError: rank out of range.
    """
    for projection in list(encoder.projections()):
        layer = LoRA(projection.layer, rank, scale, projection.parts, projection.order)
        setattr(projection.owner, projection.name, layer)


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

"""Frozen linear layers with their weights packed beforehand, for the CPU.

A matrix product copies its weights into the order that its kernel reads before it starts. For the
few hundred rows of one image that copying costs up to a quarter of the time, and a frozen weight
is always the same. Packed weights take the memory of the weight again, in training twice.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PackedWeight:
    """A weight in MKL's own order, for inputs of a given number of rows."""

    def __init__(self, weight: Tensor, rows: int, backward: bool) -> None:
        """Pack `weight` (out, in), and its transpose where a gradient is to go back through it."""
        weight = weight.detach()
        self.rows = rows
        self.forward = _pack(weight, rows)
        self.backward = _pack(weight.T.contiguous(), rows) if backward else None
        self._of = _identity(weight)

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copied layer has a weight of its own, and packs it anew if it is asked to."""
        return

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()

    def fits(self, x: Tensor, weight: Tensor) -> bool:
        """Whether the product of x and this very weight can be taken from here."""
        return (
            x.device.type == "cpu"
            and x.dtype == torch.float32
            and x.numel() == self.rows * x.shape[-1]
            and (self.backward is not None or not (torch.is_grad_enabled() and x.requires_grad))
            and not weight.requires_grad
            and not torch.is_autocast_enabled("cpu")
            and self._of == _identity(weight)
        )


class PackableLinear(nn.Linear):
    """A linear layer that takes over another's parameters, under the same names.

    Attributes:
        packed: the weight as `pack_linears` packed it; None: as PyTorch has it.
    """

    def __init__(self, plain: nn.Linear) -> None:
        """Take over the weight and bias of `plain`."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight, self.bias = plain.weight, plain.bias
        self.packed: PackedWeight | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        """x W' + b, from the packed weight where it fits."""
        packed = None if torch.compiler.is_compiling() else self.packed
        if packed is None or not packed.fits(x, self.weight):
            return F.linear(x, self.weight, self.bias)
        return _Product.apply(x, self.weight, self.bias, packed)


class _Product(torch.autograd.Function):
    """The product of an input with a packed weight; only the input gets a gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, packed: PackedWeight
    ) -> Tensor:
        ctx.packed, ctx.plain = packed, weight
        return torch.ops.mkl._mkl_linear(x, packed.forward, weight, bias, packed.rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        # the operator reads no more than the shape of the plain weight where the rows fit
        back = torch.ops.mkl._mkl_linear(
            gradient.contiguous(), ctx.packed.backward, ctx.plain.T, None, ctx.packed.rows
        )
        return back, None, None, None


def pack_linears(model: nn.Module, batch: int, backward: bool = False) -> int:
    """Pack the frozen linear layers of a model's image encoder for batches of a given size.

    Batches of another size, other devices and precisions, and weights that were changed since are
    computed as if nothing had been packed. Nothing happens where PyTorch was built without MKL,
    for weights that aren't float32 on the CPU, and for a model without an image encoder.

    Args:
        model: of this library; its parameters and their names stay as they are.
        batch: images a forward pass.
        backward: pack the transposes as well, for training.

    Returns:
        how many layers were packed.
    """
    encoder = getattr(model, "image_encoder", None)
    if encoder is None or not _available():
        return 0
    rows = batch * encoder.pos_embed.shape[1] * encoder.pos_embed.shape[2]
    count = 0
    for parent in list(encoder.blocks.modules()):
        for name, layer in list(parent.named_children()):
            if not _packable(layer):
                continue
            if type(layer) is nn.Linear:
                layer = PackableLinear(layer)
                setattr(parent, name, layer)
            layer.packed = PackedWeight(layer.weight, rows, backward)
            count += 1
    return count


def _packable(layer: nn.Module) -> bool:
    if type(layer) is not nn.Linear and not isinstance(layer, PackableLinear):
        return False
    weight = layer.weight
    return (
        not weight.requires_grad
        and not weight.is_inference()
        and weight.device.type == "cpu"
        and weight.dtype == torch.float32
    )


def _available() -> bool:
    # a private operator, the one that torch.compile uses for frozen weights
    return torch.backends.mkl.is_available() and hasattr(torch.ops.mkl, "_mkl_linear")


def _pack(weight: Tensor, rows: int) -> Tensor:
    return torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)


def _identity(weight: Tensor) -> tuple[int, int]:
    """Another one after the weight was replaced or written to."""
    return weight.data_ptr(), -1 if weight.is_inference() else weight._version

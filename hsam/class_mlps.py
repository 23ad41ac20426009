"""One small MLP per class, all classes in one batched product.

Source: paper section 3; segment_anything/modeling/mask_decoder.py, `output_hypernetworks_mlps`,
which holds the same weights as a list of separate MLPs.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class ClassMLPs(nn.Module):
    """C MLPs of equal sizes with ReLU between their layers.

    Attributes:
        weights: one (C, out, in) tensor per layer.
        biases: one (C, out) tensor per layer.
    """

    def __init__(self, classes: int, width: int, out: int, layers: int) -> None:
        """Build `classes` MLPs width -> width -> ... -> out of `layers` layers."""
        super().__init__()
        outs = [width] * (layers - 1) + [out]
        self.weights = nn.ParameterList(torch.empty(classes, size, width) for size in outs)
        self.biases = nn.ParameterList(torch.empty(classes, size) for size in outs)
        bound = 1 / math.sqrt(width)  # as nn.Linear starts
        for tensor in (*self.weights, *self.biases):
            nn.init.uniform_(tensor, -bound, bound)

    def forward(self, tokens: Tensor) -> Tensor:
        """Run each class's MLP on its own token: (B, C, width) -> (B, C, out)."""
        x = tokens.transpose(0, 1)  # B x C x width -> C x B x width
        last = len(self.weights) - 1
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))
            if index < last:
                x = torch.relu(x)
        return x.transpose(0, 1)  # C x B x out -> B x C x out


def class_masks(weights: Tensor, features: Tensor) -> Tensor:
    """Logits of each class: its weights (B, C, K) times features (B, K, H, W) -> (B, C, H, W)."""
    device = features.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        weights, features = weights.to(dtype), features.to(dtype)
    if features.is_contiguous(memory_format=torch.channels_last):  # as the norms leave them
        pixels = features.permute(0, 2, 3, 1).flatten(1, 2)  # B x K x H x W -> B x HW x K
        product = _product if torch.compiler.is_compiling() else _Product.apply
        masks = product(weights, pixels)
    else:
        masks = weights @ features.flatten(2)  # B x C x K @ B x K x HW
    return masks.unflatten(2, features.shape[-2:])


def _product(weights: Tensor, pixels: Tensor) -> Tensor:
    return weights @ pixels.mT  # B x C x K @ B x K x HW


class _Product(torch.autograd.Function):
    """`_product`, with gradients that lie in memory like what they are gradients of.

    Autograd's own lies the other way round, which slows every layer that it goes back to.
    """

    @staticmethod
    def forward(ctx: Any, weights: Tensor, pixels: Tensor) -> Tensor:
        ctx.save_for_backward(weights, pixels)
        return _product(weights, pixels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        weights, pixels = ctx.saved_tensors
        return gradient @ pixels, gradient.mT @ weights

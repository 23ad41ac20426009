"""The MLPs that turn mask tokens into mask weights, one per class, computed in one batch.

Source: paper section 3; segment_anything/modeling/mask_decoder.py, `output_hypernetworks_mlps`,
a list of MLPs with the same weights.
"""

import math

import torch
from torch import Tensor, nn


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
        bound = 1 / math.sqrt(width)  # nn.Linear's initialisation
        for tensor in (*self.weights, *self.biases):
            nn.init.uniform_(tensor, -bound, bound)

    def forward(self, tokens: Tensor) -> Tensor:
        """Apply each class's MLP to the class's token: (B, C, width) -> (B, C, out)."""
        x = tokens.transpose(0, 1)  # B x C x width -> C x B x width
        last = len(self.weights) - 1
        for index, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))
            if index < last:
                x = torch.relu(x)
        return x.transpose(0, 1)  # C x B x out -> B x C x out


def class_masks(weights: Tensor, features: Tensor) -> Tensor:
    """Mask logits, the dot product of each class's weights with the features of each pixel.

    Args:
        weights: (B, C, K), from `ClassMLPs`.
        features: (B, K, H, W).

    Returns:
        (B, C, H, W).
    """
    masks = weights @ features.flatten(2)  # B x C x K @ B x K x HW
    return torch.unflatten(masks, 2, features.shape[-2:])

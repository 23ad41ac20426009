"""Layer norm over the channels of an image.

Source: segment_anything/modeling/common.py, `LayerNorm2d`.
"""

import torch.nn.functional as F
from torch import Tensor

from hsam import sam


class LayerNorm2d(sam.LayerNorm2d):
    """SAM's `LayerNorm2d` as one fused call, which keeps fewer tensors for backward."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), in channels_last memory format."""
        x = x.permute(0, 2, 3, 1)  # B x C x H x W -> B x H x W x C
        x = F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)

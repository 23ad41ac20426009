"""Stage 1: SAM's mask decoder with one mask token per class.

Source: paper section 3; segment_anything/modeling/mask_decoder.py, `MaskDecoder`.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from hsam import sam
from hsam.class_mlps import ClassMLPs, class_masks
from hsam.norm import LayerNorm2d


class CoarseOutput(NamedTuple):
    """What stage 1 hands on.

    Attributes:
        logits: (B, C, 4G, 4G).
        iou: predicted overlap of each class, (B, C).
        tokens: mask tokens after the transformer, (B, C, D).
        image: image after the transformer, (B, D, G, G).
        upscaled: image brought to 4G, (B, D/8, 4G, 4G).
    """

    logits: Tensor
    iou: Tensor
    tokens: Tensor
    image: Tensor
    upscaled: Tensor


def upscaling(width: int) -> nn.Sequential:
    """Two doublings of the side: (B, D, G, G) -> (B, D/8, 4G, 4G), named as in SAM."""
    return nn.Sequential(
        nn.ConvTranspose2d(width, width // 4, kernel_size=2, stride=2),
        LayerNorm2d(width // 4),
        nn.GELU(),
        nn.ConvTranspose2d(width // 4, width // 8, kernel_size=2, stride=2),
        nn.GELU(),
    )


class CoarseDecoder(nn.Module):
    """Mask decoder around a two-way transformer that is passed in.

    With `CrossFirstTransformer` it is H-SAM's stage 1, with SAM's own transformer it is SAM's.
    """

    def __init__(self, transformer: nn.Module, width: int, classes: int) -> None:
        """Build a decoder of width D for `classes` classes, background among them."""
        super().__init__()
        self.transformer = transformer
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(classes, width)
        self.output_upscaling = upscaling(width)
        self.class_mlps = ClassMLPs(classes, width, width // 8, layers=3)
        self.iou_prediction_head = sam.MLP(width, width, classes, 3)

    def forward(self, image: Tensor, image_pe: Tensor, dense: Tensor) -> CoarseOutput:
        """Segment an embedded image.

        Args:
            image: image embedding, (B, D, G, G).
            image_pe: positional encoding, (1, D, G, G).
            dense: dense prompt embedding, broadcast to (B, D, G, G).
        """
        batch, _, grid, _ = image.shape
        tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = tokens.unsqueeze(0).expand(batch, -1, -1)  # B x 1+C x D
        tokens, keys = self.transformer(image + dense, image_pe, tokens)
        image = keys.transpose(1, 2).unflatten(2, (grid, grid))  # B x N x D -> B x D x G x G
        upscaled = self.output_upscaling(image)
        mask_tokens = tokens[:, 1:]
        logits = class_masks(self.class_mlps(mask_tokens), upscaled)
        iou = self.iou_prediction_head(tokens[:, 0])
        return CoarseOutput(logits, iou, mask_tokens, image, upscaled)

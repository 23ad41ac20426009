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
    """Output of stage 1.

    Attributes:
        logits: (B, C, 4G, 4G).
        iou: (B, C), predicted IoU of each class.
        tokens: (B, C, D), mask tokens after the transformer.
        image: (B, D, G, G), image features after the transformer.
        upscaled: (B, D/8, 4G, 4G), image features after the upscaling.
    """

    logits: Tensor
    iou: Tensor
    tokens: Tensor
    image: Tensor
    upscaled: Tensor


def upscaling(width: int) -> nn.Sequential:
    """SAM's upscaling by 4, with its parameter names: (B, D, G, G) -> (B, D/8, 4G, 4G)."""
    return nn.Sequential(
        nn.ConvTranspose2d(width, width // 4, kernel_size=2, stride=2),
        LayerNorm2d(width // 4),
        nn.GELU(),
        nn.ConvTranspose2d(width // 4, width // 8, kernel_size=2, stride=2),
        nn.GELU(),
    )


def decoder_steps(image_size: int, grid: int) -> tuple[int, int]:
    """Enlargements of the fine decoder after the upscaling by 4, up to the image's side.

    Args:
        image_size: side S of the images in pixels.
        grid: side G of the embedding.

    Returns:
        two factors, each 1 or 2, whose product is S / 4G.

    Raises:
        ValueError: S isn't 4, 8 or 16 times G.
    """
    steps = {4 * grid: (1, 1), 8 * grid: (1, 2), 16 * grid: (2, 2)}
    if image_size not in steps:
        raise ValueError(
            f"image_size: expected 4, 8 or 16 times the side of the encoder's grid of {grid}, "
            f"{4 * grid}, {8 * grid} or {16 * grid}, got {image_size}"
        )
    return steps[image_size]


class CoarseDecoder(nn.Module):
    """SAM's mask decoder with one mask token and one mask per class.

    With `CrossFirstTransformer` it is H-SAM's stage 1, with `sam.TwoWayTransformer` SAM's decoder.
    """

    def __init__(self, transformer: nn.Module, width: int, classes: int) -> None:
        """Build the decoder.

        Args:
            transformer: two-way transformer of width D, called with image (B, D, G, G), positional
                encoding (1, D, G, G) and tokens (B, T, D); returns tokens and image (B, N, D).
            width: D.
            classes: number of classes C, background included.
        """
        super().__init__()
        self.transformer = transformer
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(classes, width)
        self.output_upscaling = upscaling(width)
        self.class_mlps = ClassMLPs(classes, width, width // 8, layers=3)
        # no loss trains it
        self.iou_prediction_head = sam.MLP(width, width, classes, 3).requires_grad_(False)

    def forward(self, image: Tensor, image_pe: Tensor, dense: Tensor) -> CoarseOutput:
        """Predict coarse masks from an image embedding.

        Args:
            image: (B, D, G, G), image embedding.
            image_pe: (1, D, G, G), positional encoding of the image.
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

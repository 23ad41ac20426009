"""Stage 2: a second decoder, guided by the masks of stage 1.

Source: paper section 3 (CMAttn, learnable mask-attention, hierarchical pixel decoder).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hsam import sam
from hsam.class_balance import ClassBalancedMaskAttention
from hsam.class_mlps import ClassMLPs, class_masks
from hsam.coarse_decoder import CoarseOutput, upscaling
from hsam.norm import LayerNorm2d
from hsam.two_way import MaskedTransformer


class FineOutput(NamedTuple):
    """Logits (B, C, S, S) and predicted IoU of each class (B, C)."""

    logits: Tensor
    iou: Tensor


class HierarchicalPixelDecoder(nn.Module):
    """Concatenates the upscaled features of both stages and brings them to the image's side.

    A step that enlarges by 2 is the paper's transposed convolution; one that keeps the side, for
    embeddings finer than SAM's, is a 3 x 3 convolution.

    Source: paper section 3, hierarchical pixel decoder.
    """

    def __init__(self, width: int, steps: tuple[int, int] = (2, 2)) -> None:
        """Build for decoders of width D, D/4 channels in, D/16 out, and two enlargements."""
        super().__init__()
        self.skip_connect = nn.Sequential(
            _step(width // 4, width // 8, steps[0]),
            LayerNorm2d(width // 8),
            nn.GELU(),
            _step(width // 8, width // 16, steps[1]),
            LayerNorm2d(width // 16),
            nn.GELU(),
        )

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Features of stage 2 and stage 1, (B, D/8, 4G, 4G) each -> (B, D/16, S, S)."""
        joined: Tensor = self.skip_connect(torch.cat([fine, coarse], dim=1))
        return joined


def _step(dim: int, out: int, enlargement: int) -> nn.Module:
    if enlargement == 1:
        return nn.Conv2d(dim, out, kernel_size=3, padding=1)
    return nn.ConvTranspose2d(dim, out, kernel_size=enlargement, stride=enlargement)


class FineDecoder(nn.Module):
    """The second decoder; each of its three parts can be turned off (paper table 11)."""

    def __init__(
        self,
        transformer: MaskedTransformer,
        width: int,
        classes: int,
        cm_attention: ClassBalancedMaskAttention | None,
        mask_attention: bool = True,
        pixel_decoder: bool = True,
        steps: tuple[int, int] = (2, 2),
    ) -> None:
        """Build the decoder.

        Args:
            transformer: two-way transformer of width D whose cross attentions take a mask.
            width: D.
            classes: number of classes C, background included.
            cm_attention: computes the gate of the image embedding; None: no gate.
            mask_attention: multiply the cross attentions by the prior mask.
            pixel_decoder: predict at full resolution; False: predict at 4G and resize.
            steps: enlargements from 4G to the image's side, as `decoder_steps` gives them.
        """
        super().__init__()
        self.transformer = transformer
        self.mask_tokens = nn.Embedding(classes, width)
        self.cm_attention = cm_attention
        self.mask_attention = mask_attention
        self.output_upscaling = upscaling(width)
        self.pixel_decoder = HierarchicalPixelDecoder(width, steps) if pixel_decoder else None
        self.enlargement = steps[0] * steps[1]
        out = width // 16 if pixel_decoder else width // 8
        self.class_mlps = ClassMLPs(classes, width, out, layers=5)
        # no loss trains it
        self.iou_prediction_head = sam.MLP(width, width, classes, 3).requires_grad_(False)

    def forward(
        self,
        image: Tensor,
        image_pe: Tensor,
        dense: Tensor,
        coarse: CoarseOutput,
        labels: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> FineOutput:
        """Predict fine masks from an image embedding and stage 1's output.

        Args:
            image: (B, D, G, G), image embedding; in training with noise.
            image_pe: (1, D, G, G), positional encoding of the image.
            dense: dense prompt embedding, broadcast to (B, D, G, G).
            coarse: output of stage 1.
            labels: (B, S, S), integer ground truth for CMAttn's noise; used in training only.
            generator: random number generator for noise and dropout in training.
        """
        batch, _, grid, _ = image.shape
        image = image + dense
        if self.cm_attention is not None:
            prior = coarse.tokens @ coarse.image.flatten(2)  # B x C x D @ B x D x N
            gate = self.cm_attention(prior, labels, generator)  # B x N
            image = image + image * gate.unflatten(1, (1, grid, grid))  # B x 1 x G x G
        mask = prior_mask(coarse.logits, grid) if self.mask_attention else None
        tokens = self.mask_tokens.weight.unsqueeze(0).expand(batch, -1, -1)  # B x C x D
        tokens, keys = self.transformer(image, image_pe, tokens, mask, generator)
        image = keys.transpose(1, 2).unflatten(2, (grid, grid))  # B x N x D -> B x D x G x G
        features = self.output_upscaling(image)
        if self.pixel_decoder is not None:
            features = self.pixel_decoder(features, coarse.upscaled)
        logits = class_masks(self.class_mlps(tokens), features)
        if self.pixel_decoder is None and self.enlargement > 1:
            logits = F.interpolate(
                logits, scale_factor=self.enlargement, mode="bilinear", align_corners=False
            )
        return FineOutput(logits, self.iou_prediction_head(tokens[:, 0]))


def prior_mask(logits: Tensor, grid: int) -> Tensor:
    """Class probabilities on the patch grid: logits (B, C, H, W) -> (B, C, N) in [0, 1].

    Source: paper section 3, learnable mask-attention.
    """
    small = F.interpolate(logits, size=(grid, grid), mode="bilinear", align_corners=False)
    return torch.softmax(small.flatten(2), dim=1)

"""SAM's image encoder at any image size.

Source: segment_anything/modeling/image_encoder.py; paper section 3.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hsam import sam
from hsam.attention import RelativePositionAttention
from hsam.backbones import BACKBONES, Backbone
from hsam.encoders.base import ImageEncoder, Projection

PATCH = 16  # pixels per side of a patch; SAM has no other
_BLOCK = re.compile(r"^image_encoder\.blocks\.(\d+)\.")
_RELATIVE = re.compile(r"^blocks\.\d+\.attn\.rel_pos_[hw]$")


class EncoderBlock(sam.EncoderBlock):
    """Transformer block with attention in windows or over the whole grid, and an MLP.

    Source: segment_anything/modeling/image_encoder.py, `Block`.
    """

    def __init__(self, dim: int, num_heads: int, window: int, grid: int) -> None:
        """Build the block.

        Args:
            dim: width.
            num_heads: attention heads.
            window: side of an attention window in patches; 0: attention over the whole grid.
            grid: side G of the grid in patches.
        """
        norm = partial(nn.LayerNorm, eps=1e-6)
        super().__init__(dim, num_heads, norm_layer=norm)
        side = (window or grid,) * 2
        self.attn = RelativePositionAttention(
            dim, num_heads, qkv_bias=True, use_rel_pos=True, input_size=side
        )
        self.window_size = window

    def forward(self, x: Tensor) -> Tensor:
        """(B, G, G, dim) -> (B, G, G, dim)."""
        x = x + self.attn(self.norm1(x), self.window_size)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class SamViT(sam.ImageEncoderViT, ImageEncoder):
    """SAM's image encoder, with the parameter names of SAM's checkpoints.

    Attributes:
        checkpoint_blocks: recompute each block in the backward pass instead of keeping its
            activations, which takes less memory and about a third more time.

    Source: paper section 3; segment_anything/modeling/image_encoder.py, `ImageEncoderViT`.
    """

    def __init__(
        self,
        backbone: Backbone,
        image_size: int,
        checkpoint_blocks: bool = False,
        normalise: bool = False,
    ) -> None:
        """Build the encoder.

        Args:
            backbone: its line of the table.
            image_size: side E of the images in pixels.
            checkpoint_blocks, normalise: see the classes.

        Raises:
            ValueError: `image_size` is no positive multiple of 16.
        """
        ImageEncoder.check_side(backbone, image_size)
        sizes = backbone.sizes
        super().__init__(
            img_size=image_size,
            patch_size=PATCH,
            embed_dim=sizes["embed_dim"],
            depth=0,  # the blocks are added below
            out_chans=backbone.width,
        )
        self.set_up(backbone, image_size, normalise)
        self.blocks.extend(
            EncoderBlock(
                sizes["embed_dim"],
                sizes["num_heads"],
                0 if index in sizes["global_blocks"] else sizes["window"],
                self.grid,
            )
            for index in range(sizes["depth"])
        )
        self.checkpoint_blocks = checkpoint_blocks

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, E, E) in [0, 1] -> (B, D, G, G) with G = E / 16."""
        x = self.patch_embed(self.normalised(image))  # B x G x G x dim
        x = (x + self.pos_embed).contiguous()  # patch_embed returns a permuted view
        recompute = self.checkpoint_blocks and torch.is_grad_enabled()
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        embedding: Tensor = self.neck(x.permute(0, 3, 1, 2))  # B x dim x G x G -> B x D x G x G
        return embedding

    def projections(self) -> Iterator[Projection]:
        """q, k and v of each block, in one layer."""
        blocks: Any = self.blocks
        for block in blocks:
            yield Projection(block.attn, "qkv")

    def kind(self) -> str:
        """See the base class."""
        return vit_kind(self.pos_embed.shape[-1], len(self.blocks))

    @staticmethod
    def kind_in(state: Mapping[str, Tensor]) -> str | None:
        """See the base class."""
        position = state.get("image_encoder.pos_embed")
        if position is None or position.ndim != 4:
            return None
        blocks = (int(match[1]) for key in state if (match := _BLOCK.match(key)))
        return vit_kind(position.shape[-1], 1 + max(blocks, default=-1))

    def fitted(self, name: str, value: Tensor, shape: torch.Size) -> Tensor | None:
        """Positions are interpolated bilinearly to this encoder's grid.

        Source: paper section 4 (SAM's weights at 224 and 512 px).
        """
        if name == "pos_embed" and value.shape[-1] == shape[-1]:
            # 1 x H x W x dim -> 1 x dim x H x W and back
            grid = value.permute(0, 3, 1, 2).float()
            grid = F.interpolate(grid, size=shape[1:3], mode="bilinear", align_corners=False)
            return grid.permute(0, 2, 3, 1)
        if _RELATIVE.match(name) and value.shape[-1] == shape[-1]:
            table = value.float()[None, None]  # 1 x 1 x rows x d
            table = F.interpolate(table, size=tuple(shape), mode="bilinear", align_corners=False)
            return table[0, 0]
        return None


def vit_kind(dim: int, depth: int) -> str:
    """Name, width and depth of an encoder of the family."""
    known = {
        (line.sizes["embed_dim"], line.sizes["depth"]): name
        for name, line in reversed(BACKBONES.items())
        if "embed_dim" in line.sizes
    }
    return f"{known.get((dim, depth), 'an unknown encoder')} ({dim} wide, {depth} deep)"

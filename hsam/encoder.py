"""SAM's image encoder at any image size.

Source: segment_anything/modeling/image_encoder.py; paper section 3.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hsam import sam
from hsam.attention import RelativePositionAttention
from hsam.backbones import PATCH, Backbone


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


class ImageEncoder(sam.ImageEncoderViT):
    """SAM's image encoder, with the parameter names of SAM's checkpoints.

    Attributes:
        checkpoint_blocks: recompute each block in the backward pass instead of keeping its
            activations, which takes less memory and about a third more time.

    Source: paper section 3; segment_anything/modeling/image_encoder.py, `ImageEncoderViT`.
    """

    def __init__(
        self, backbone: Backbone, image_size: int, checkpoint_blocks: bool = False
    ) -> None:
        """Build the encoder.

        Args:
            backbone: its sizes.
            image_size: side S of the images in pixels.
            checkpoint_blocks: see the class.

        Raises:
            ValueError: `image_size` is no positive multiple of 16.
        """
        if image_size < PATCH or image_size % PATCH:
            raise ValueError(
                f"image_size: expected a positive multiple of {PATCH}, got {image_size}"
            )
        super().__init__(
            img_size=image_size,
            patch_size=PATCH,
            embed_dim=backbone.embed_dim,
            depth=0,  # the blocks are added below
            out_chans=backbone.width,
        )
        grid = image_size // PATCH
        self.blocks.extend(
            EncoderBlock(
                backbone.embed_dim,
                backbone.num_heads,
                0 if index in backbone.global_blocks else backbone.window,
                grid,
            )
            for index in range(backbone.depth)
        )
        self.checkpoint_blocks = checkpoint_blocks

    def forward(self, image: Tensor) -> Tensor:
        """Embed an image.

        Args:
            image: (B, 3, S, S), floating, in [0, 1].

        Returns:
            (B, D, G, G) with G = S / 16.
        """
        x = self.patch_embed(image)  # B x G x G x dim
        x = (x + self.pos_embed).contiguous()  # patch_embed returns a permuted view
        recompute = self.checkpoint_blocks and torch.is_grad_enabled()
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        embedding: Tensor = self.neck(x.permute(0, 3, 1, 2))  # B x dim x G x G -> B x D x G x G
        return embedding

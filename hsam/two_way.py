"""The two-way transformers of H-SAM: token-to-image attention before the tokens' self attention.

SAM's block starts with the self attention of the tokens. H-SAM swaps these two; each norm stays
with its layer (norm1: self attention, norm2: token-to-image attention, norm3: MLP, norm4:
image-to-token attention). As in SAM, the self attention of block 0 has no positional encoding and
no residual connection.

Source: paper section 3; segment_anything/modeling/transformer.py.
"""

import math

import torch
from torch import Tensor, nn

from hsam import sam
from hsam.noise import dropout


class CrossFirstBlock(sam.TwoWayAttentionBlock):
    """Token-to-image attention, self attention of the tokens, MLP, image-to-token attention.

    Source: paper section 3; segment_anything/modeling/transformer.py, `TwoWayAttentionBlock`.
    """

    def forward(
        self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update tokens and image.

        Args:
            queries: (B, T, D), tokens.
            keys: (B, N, D), image features.
            query_pe: (B, T, D), positional encoding of the tokens: the first block's tokens.
            key_pe: positional encoding of the image, broadcast to (B, N, D).

        Returns:
            tokens (B, T, D) and image features (B, N, D).
        """
        attended = self.cross_attn_token_to_image(q=queries + query_pe, k=keys + key_pe, v=keys)
        queries = self.norm2(queries + attended)
        queries = self._self_attention_and_mlp(queries, query_pe)
        attended = self.cross_attn_image_to_token(q=keys + key_pe, k=queries + query_pe, v=queries)
        return queries, self.norm4(keys + attended)

    def _self_attention_and_mlp(self, queries: Tensor, query_pe: Tensor) -> Tensor:
        if self.skip_first_layer_pe:
            queries = self.self_attn(q=queries, k=queries, v=queries)
        else:
            q = queries + query_pe
            queries = queries + self.self_attn(q=q, k=q, v=queries)
        queries = self.norm1(queries)
        normed: Tensor = self.norm3(queries + self.mlp(queries))
        return normed


class CrossFirstTransformer(sam.TwoWayTransformer):
    """SAM's two-way transformer with `CrossFirstBlock`s (stage 1).

    Source: paper section 3; segment_anything/modeling/transformer.py, `TwoWayTransformer`.
    """

    def __init__(self, width: int, heads: int, mlp_dim: int, depth: int = 2) -> None:
        """Build `depth` blocks of width D; `mlp_dim` is the hidden width of their MLPs."""
        super().__init__(0, width, heads, mlp_dim)
        self.depth = depth
        self.layers.extend(
            CrossFirstBlock(width, heads, mlp_dim, nn.ReLU, skip_first_layer_pe=index == 0)
            for index in range(depth)
        )


class MaskedAttention(sam.DecoderAttention):
    """Multi-head attention whose weights are multiplied by a mask after the softmax.

    The weights aren't normalised again.

    Source: paper section 3, learnable mask-attention.
    """

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            q: (B, T, D), queries.
            k, v: (B, M, D), keys and values.
            mask: (B, T, M) in [0, 1], the same for all heads; None: plain attention.

        Returns:
            (B, T, D).
        """
        if mask is None:
            return super().forward(q, k, v)
        q = self._separate_heads(self.q_proj(q), self.num_heads)  # B x heads x T x d
        k = self._separate_heads(self.k_proj(k), self.num_heads)  # B x heads x M x d
        v = self._separate_heads(self.v_proj(v), self.num_heads)
        score = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        weight = torch.softmax(score, dim=-1) * mask.unsqueeze(1)  # B x heads x T x M
        out: Tensor = self.out_proj(self._recombine_heads(weight @ v))
        return out


class MaskedBlock(CrossFirstBlock):
    """`CrossFirstBlock` whose two cross attentions are masked and have full width.

    Source: paper section 3, learnable mask-attention.
    """

    def __init__(
        self, width: int, heads: int, mlp_dim: int, first: bool, dropout_rate: float
    ) -> None:
        """Build the block.

        Args:
            width: D.
            heads: attention heads.
            mlp_dim: hidden width of the MLP.
            first: whether it is block 0.
            dropout_rate: dropout after the token-to-image attention in training.
        """
        super().__init__(width, heads, mlp_dim, nn.ReLU, skip_first_layer_pe=first)
        self.cross_attn_token_to_image = MaskedAttention(width, heads)
        self.cross_attn_image_to_token = MaskedAttention(width, heads)
        self.dropout_rate = dropout_rate

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        query_pe: Tensor,
        key_pe: Tensor,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Update tokens and image.

        Args:
            queries, keys, query_pe, key_pe: as in `CrossFirstBlock`.
            mask: (B, T, N) in [0, 1], class probabilities by position; None: no mask.
            generator: random number generator for dropout in training.

        Returns:
            tokens (B, T, D) and image features (B, N, D).
        """
        attended = self.cross_attn_token_to_image(
            q=queries + query_pe, k=keys + key_pe, v=keys, mask=mask
        )
        if self.training:
            attended = dropout(attended, self.dropout_rate, generator)
        queries = self.norm2(queries + attended)
        queries = self._self_attention_and_mlp(queries, query_pe)
        attended = self.cross_attn_image_to_token(
            q=keys + key_pe,
            k=queries + query_pe,
            v=queries,
            mask=None if mask is None else mask.transpose(1, 2),
        )
        return queries, self.norm4(keys + attended)


class MaskedTransformer(nn.Module):
    """Two-way transformer of `MaskedBlock`s (stage 2).

    Source: paper section 3, learnable mask-attention.
    """

    def __init__(
        self, width: int, heads: int, mlp_dim: int, depth: int = 2, dropout_rate: float = 0.2
    ) -> None:
        """Build `depth` blocks; the final attention is SAM's, without a mask, at half the width."""
        super().__init__()
        self.layers = nn.ModuleList(
            MaskedBlock(width, heads, mlp_dim, index == 0, dropout_rate) for index in range(depth)
        )
        self.final_attn_token_to_image = sam.DecoderAttention(width, heads, downsample_rate=2)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(
        self,
        image: Tensor,
        image_pe: Tensor,
        tokens: Tensor,
        mask: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Update tokens and image.

        Args:
            image: (B, D, G, G), image features.
            image_pe: (1, D, G, G), positional encoding of the image.
            tokens: (B, T, D).
            mask: (B, T, N) in [0, 1], N = G * G, class probabilities by position; None: no mask.
            generator: random number generator for dropout in training.

        Returns:
            tokens (B, T, D) and image features (B, N, D).
        """
        keys = image.flatten(2).transpose(1, 2)  # B x D x G x G -> B x N x D
        key_pe = image_pe.flatten(2).transpose(1, 2)
        queries = tokens
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, key_pe, mask, generator)
        attended = self.final_attn_token_to_image(q=queries + tokens, k=keys + key_pe, v=keys)
        return self.norm_final_attn(queries + attended), keys

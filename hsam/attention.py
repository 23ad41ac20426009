"""The attention of SAM's image encoder as fused calls.

SAM adds a bias from relative positions to the scores of query i and key j, where y and x are the
row and column of a patch in its window:

    score(i, j) = scale * q_i . k_j + q_i . R_h[y_i - y_j] + q_i . R_w[x_i - x_j]

Here the bias is part of a longer dot product. The query is extended by its products with the
relative positions of all rows and of all columns, the key by the one-hot codes of its own row and
column. So `scaled_dot_product_attention` computes SAM's attention and stores no N x N scores.

Windows that reach over the edge of the grid are padded after the projection: a zero patch's key
and value are the projection's bias. Only real patches are projected and have queries.

Source: paper section 3; segment_anything/modeling/image_encoder.py, `Attention` and `Block`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hsam import sam
from hsam.windows import split, windows


class RelativePositionAttention(sam.EncoderAttention):
    """Multi-head self-attention over a grid of patches, in windows or over the whole grid.

    Parameters are named as in SAM, so its checkpoints load unchanged.
    """

    def forward(self, x: Tensor, window: int = 0) -> Tensor:
        """Attend inside each window.

        Args:
            x: (B, H, W, dim), floating.
            window: side of a window in patches. Windows that reach over the edge have zero patches
                there, as in SAM. 0: one window, the whole grid, which then has to be square.

        Returns:
            (B, H, W, dim).

        Raises:
            ValueError: the tables of relative positions don't have 2 * side - 1 rows.
        """
        batch, height, width, _ = x.shape
        side = window or height
        for table in (self.rel_pos_h, self.rel_pos_w):
            if table.shape[0] != 2 * side - 1:
                raise ValueError(
                    f"relative positions: expected {2 * side - 1} rows for a side of {side} "
                    f"patches, got {table.shape[0]}"
                )
        qkv = self.qkv(x).reshape(batch, height, width, 3, self.num_heads, -1)
        strips = [
            _cat([self._attend(part, side) for part in strip], dim=2) for strip in split(qkv, side)
        ]
        out: Tensor = self.proj(_cat(strips, dim=1))
        return out

    def _attend(self, qkv: Tensor, side: int) -> Tensor:
        """Attention inside windows of equal shape: (B, H, W, 3, heads, d) -> (B, H, W, dim)."""
        # B x down x across x heads x height x width x d, with the real patches of each window
        q, k, v = (windows(x, side) for x in qkv.unbind(3))
        height, width, d = q.shape[-3:]
        if (height, width) != (side, side):
            k_pad, v_pad = self.qkv.bias.to(q.dtype).reshape(3, self.num_heads, d)[1:]
            k, v = _pad(k, k_pad, side), _pad(v, v_pad, side)
        # products of each query with the relative positions of all rows and columns
        to_rows = torch.einsum("...yxc,ykc->...yxk", q, _relative(self.rel_pos_h, height, side))
        to_columns = torch.einsum("...yxc,xkc->...yxk", q, _relative(self.rel_pos_w, width, side))
        one_hot = torch.eye(side, dtype=q.dtype, device=q.device)
        row_code = one_hot[:, None].expand(*k.shape[:-1], side)
        column_code = one_hot.expand(*k.shape[:-1], side)
        # SAM's scale is for q . k alone, the fused call's for the whole product
        q = torch.cat([q, to_rows / self.scale, to_columns / self.scale], dim=-1)
        k = torch.cat([k, row_code, column_code], dim=-1)
        v = F.pad(v, (0, 2 * side))  # fused kernels want q, k and v of one length
        # -> windows x heads x patches x (d + 2 side)
        shape = q.shape[:-1]
        q, k, v = (x.flatten(0, 2).flatten(2, 3) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, scale=self.scale)[..., :d]
        # -> B x down x height x across x width x heads x d -> B x H x W x dim
        out = out.reshape(*shape, d).permute(0, 1, 4, 2, 5, 3, 6)
        return out.reshape(*qkv.shape[:3], -1)


def _pad(x: Tensor, value: Tensor, side: int) -> Tensor:
    """Pad windows (..., heads, height, width, d) to side x side with a value (heads, d)."""
    *leading, height, width, _ = x.shape
    value = value[:, None, None]
    x = torch.cat([x, value.expand(*leading, height, side - width, -1)], dim=-2)
    return torch.cat([x, value.expand(*leading, side - height, side, -1)], dim=-3)


def _cat(parts: list[Tensor], dim: int) -> Tensor:
    """Concatenate; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _relative(table: Tensor, queries: int, side: int) -> Tensor:
    """Relative positions by query and key: (2 side - 1, d) -> (queries, side, d)."""
    query = torch.arange(queries, device=table.device)
    key = torch.arange(side, device=table.device)
    return table[query[:, None] - key + side - 1]

"""SAM's image-encoder attention as one fused call.

SAM writes out all N x N scores and adds a decomposed relative-position bias,
bias(i, j) = q_i . Rh[h_i - h_j] + q_i . Rw[w_i - w_j]. Here q is extended by its products with all
rows' and all columns' tables, and k by the one-hot codes of its own row and column: the plain dot
product of the longer vectors is score + bias, so any fused kernel computes it and no N x N tensor
is stored. Windows that reach over the edge aren't projected either: a padded patch is zero, so its
query, key and value are the projection's bias.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hsam import sam


class RelativePositionAttention(sam.EncoderAttention):
    """Multi-head attention over a grid of patches, whole or in windows.

    Parameters are named as in SAM, so its checkpoints load unchanged.

    Source: segment_anything/modeling/image_encoder.py, `Attention` and `Block`.
    """

    def forward(self, x: Tensor, window: int = 0) -> Tensor:
        """Attend inside windows, or over the whole grid.

        Args:
            x: (B, H, W, dim), floating.
            window: side of a window in patches; 0 attends over the whole grid. The grid is padded
                to a multiple of it as SAM does: padded patches are keys as well.

        Returns:
            (B, H, W, dim).
        """
        height, width = x.shape[1:3]
        qkv = self.qkv(x)  # B x H x W x 3 dim
        if window and (height, width) != (window, window):
            qkv, grid = self._windows(qkv, window)
            out = self._join(self._attend(qkv), grid)[:, :height, :width]
        else:
            out = self._attend(qkv)
        return self.proj(out)

    def _windows(self, qkv: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
        """Split a B x H x W x 3 dim map into B nh nw x window x window x 3 dim."""
        batch, height, width, channels = qkv.shape
        rows, columns = -(-height // window), -(-width // window)
        pad_rows, pad_columns = rows * window - height, columns * window - width
        # what the projection of an all-zero patch is
        empty = self.qkv.bias if self.qkv.bias is not None else qkv.new_zeros(channels)
        if pad_columns:
            fill = empty.to(qkv.dtype).expand(batch, height, pad_columns, channels)
            qkv = torch.cat([qkv, fill], dim=2)
        if pad_rows:
            fill = empty.to(qkv.dtype).expand(batch, pad_rows, columns * window, channels)
            qkv = torch.cat([qkv, fill], dim=1)
        # B x nh x window x nw x window x 3 dim -> B x nh x nw x window x window x 3 dim
        qkv = qkv.reshape(batch, rows, window, columns, window, channels).transpose(2, 3)
        return qkv.reshape(-1, window, window, channels), (rows, columns)

    @staticmethod
    def _join(x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Undo `_windows` for B nh nw x window x window x dim."""
        window, channels = x.shape[1], x.shape[3]
        # B x nh x nw x window x window x dim -> B x nh x window x nw x window x dim
        x = x.reshape(-1, *grid, window, window, channels).transpose(2, 3)
        return x.reshape(-1, grid[0] * window, grid[1] * window, channels)

    def _attend(self, qkv: Tensor) -> Tensor:
        """Attention of every patch of a B x H x W x 3 dim map to every other: B x H x W x dim."""
        batch, height, width, _ = qkv.shape
        count = height * width
        qkv = qkv.reshape(batch, count, 3, self.num_heads, -1)
        # B x N x 3 x heads x d -> 3 x B x heads x N x d
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        head_dim = q.shape[-1]
        if self.use_rel_pos:
            q, k = self._extend(q, k, height, width)
            v = F.pad(v, (0, q.shape[-1] - head_dim))  # fused kernels want one head size
        else:
            q = q * self.scale
        out = F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :head_dim]
        # B x heads x N x d -> B x H x W x dim
        return out.transpose(1, 2).reshape(batch, height, width, -1)

    def _extend(self, q: Tensor, k: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Lengthen q and k (B x heads x N x d) by H + W, so that q . k is score + bias."""
        batch, heads, count, _ = q.shape
        rows = _relative(self.rel_pos_h, height)
        columns = _relative(self.rel_pos_w, width)
        grid = q.reshape(batch, heads, height, width, -1)
        to_rows = torch.einsum("bnhwc,hkc->bnhwk", grid, rows).reshape(batch, heads, count, height)
        to_columns = torch.einsum("bnhwc,wkc->bnhwk", grid, columns)
        to_columns = to_columns.reshape(batch, heads, count, width)
        # the scale belongs to the score alone, not to the bias
        q = torch.cat([q * self.scale, to_rows, to_columns], dim=-1)
        eye_h = torch.eye(height, dtype=k.dtype, device=k.device)
        eye_w = torch.eye(width, dtype=k.dtype, device=k.device)
        code = torch.cat([eye_h.repeat_interleave(width, 0), eye_w.repeat(height, 1)], dim=-1)
        k = torch.cat([k, code.expand(batch, heads, -1, -1)], dim=-1)
        return q, k


def _relative(table: Tensor, size: int) -> Tensor:
    """Rows of a [2 size - 1, d] table by query and key position: size x size x d."""
    if table.shape[0] != 2 * size - 1:
        raise ValueError(
            f"relative positions: expected {2 * size - 1} rows for a side of {size} patches, "
            f"got {table.shape[0]}"
        )
    position = torch.arange(size, device=table.device)
    return table[position[:, None] - position[None, :] + size - 1]

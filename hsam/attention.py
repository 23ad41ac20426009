"""SAM's image-encoder attention as fused calls.

SAM writes out all N x N scores and adds a decomposed relative-position bias,
bias(i, j) = q_i . Rh[h_i - h_j] + q_i . Rw[w_i - w_j]. Here q is extended by its products with all
rows' and all columns' tables, and k by the one-hot codes of its own row and column: the plain dot
product of the longer vectors is score + bias, so any fused kernel computes it and no N x N tensor
is stored.

Windows that reach over the edge cost what they are worth: SAM pads the map with zeros, whose query,
key and value are the projection's bias. So only real patches are projected and ask; the padding is
appended to their keys.
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
            window: side of a window in patches; 0 attends over the whole grid, which then has to
                be square. Windows over the edge see padding as keys, as in SAM.

        Returns:
            (B, H, W, dim).

        Raises:
            ValueError: relative positions of another size.
        """
        batch, height, width, _ = x.shape
        side = window or height
        qkv = self.qkv(x).reshape(batch, height, width, 3, self.num_heads, -1)
        # whole windows, windows over an edge, the one over the corner: at most four kinds
        strips = [
            _cat([self._attend(part, side) for part in _split(strip, side, dim=2)], dim=2)
            for strip in _split(qkv, side, dim=1)
        ]
        return self.proj(_cat(strips, dim=1))

    def _attend(self, qkv: Tensor, side: int) -> Tensor:
        """Attention inside equal windows of up to side x side real patches.

        Args:
            qkv: (B, H, W, 3, heads, d); H and W are whole numbers of windows, or less than one.

        Returns:
            (B, H, W, dim).
        """
        batch, height, width, _, heads, head_dim = qkv.shape
        tall, wide = min(side, height), min(side, width)  # real patches of a window
        down, across = height // tall, width // wide
        qkv = qkv.reshape(batch, down, tall, across, wide, 3, heads, head_dim)
        # -> 3 x B x down x across x heads x tall x wide x d, still views of one projection
        q, k, v = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).unbind(0)
        q = self._extend_queries(q, side).flatten(0, 2).flatten(2, 3)
        row, column = _positions(tall, wide, side, q.device)
        places = torch.arange(side, device=q.device)
        code = torch.cat([row[:, None] == places, column[:, None] == places], dim=-1).to(q.dtype)
        real, padding = code.split([tall * wide, side * side - tall * wide])
        k = _append(k, real.unflatten(0, (tall, wide)))
        v = _append(v, torch.zeros_like(real[0]))  # fused kernels want one head size
        k, v = (x.flatten(0, 2).flatten(2, 3) for x in (k, v))
        if len(padding) > 0:
            _, key, value = self._projected_zero(q.dtype)
            k = _lengthen(k, _append(key.expand(-1, len(padding), -1), padding))
            v = _lengthen(v, _append(value.expand(-1, len(padding), -1), torch.zeros_like(padding)))
        out = F.scaled_dot_product_attention(q, k, v, scale=self.scale)[..., :head_dim]
        # (B x down x across) x heads x (tall x wide) x d -> B x H x W x dim
        out = out.reshape(batch, down, across, heads, tall, wide, head_dim)
        return out.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, width, -1)

    def _extend_queries(self, q: Tensor, side: int) -> Tensor:
        """(..., heads, tall, wide, d) -> (..., heads, tall, wide, d + 2 side): with bias terms."""
        # the kernel's scale belongs to the score alone, so the bias is divided by it beforehand
        rows = _relative(self.rel_pos_h, q.shape[-3], side) / self.scale
        columns = _relative(self.rel_pos_w, q.shape[-2], side) / self.scale
        to_rows = torch.einsum("...hwc,hkc->...hwk", q, rows)
        to_columns = torch.einsum("...hwc,wkc->...hwk", q, columns)
        return torch.cat([q, to_rows, to_columns], dim=-1)

    def _projected_zero(self, dtype: torch.dtype) -> Tensor:
        """Query, key and value of an all-zero patch: 3 x heads x 1 x d."""
        bias = self.qkv.bias
        if bias is None:
            bias = self.qkv.weight.new_zeros(self.qkv.weight.shape[0])
        return bias.to(dtype).reshape(3, self.num_heads, 1, -1)


def _append(x: Tensor, ends: Tensor) -> Tensor:
    """Lengthen the last axis of x by `ends`, the same for all leading axes."""
    return torch.cat([x, ends.expand(*x.shape[:-1], -1)], dim=-1)


def _lengthen(x: Tensor, padding: Tensor) -> Tensor:
    """Put heads x P x d after the N patches of each window: B x heads x (N + P) x d."""
    return torch.cat([x, padding.expand(x.shape[0], -1, -1, -1)], dim=2)


def _split(x: Tensor, side: int, dim: int) -> tuple[Tensor, ...]:
    """The part of an axis that whole windows cover, and the rest of it."""
    length = x.shape[dim]
    # not slices: each of them would get a gradient of the whole's size
    return x.split([part for part in (length // side * side, length % side) if part], dim)


def _cat(parts: list[Tensor], dim: int) -> Tensor:
    """Join parts without copying a single one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _positions(tall: int, wide: int, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of every key of a window, the tall x wide real patches first."""
    row, column = torch.meshgrid(
        torch.arange(side, device=device), torch.arange(side, device=device), indexing="ij"
    )
    parts = [(slice(tall), slice(wide)), (slice(tall), slice(wide, side)), (slice(tall, side),)]
    return tuple(torch.cat([axis[part].flatten() for part in parts]) for axis in (row, column))


def _relative(table: Tensor, queries: int, side: int) -> Tensor:
    """Rows of a [2 side - 1, d] table by query and key position: queries x side x d."""
    if table.shape[0] != 2 * side - 1:
        raise ValueError(
            f"relative positions: expected {2 * side - 1} rows for a side of {side} patches, "
            f"got {table.shape[0]}"
        )
    query = torch.arange(queries, device=table.device)
    key = torch.arange(side, device=table.device)
    return table[query[:, None] - key[None, :] + side - 1]

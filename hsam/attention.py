"""SAM's image-encoder attention as fused calls.

SAM writes out all N x N scores and adds a decomposed relative-position bias,
bias(i, j) = q_i . Rh[h_i - h_j] + q_i . Rw[w_i - w_j]. Here q is extended by its products with all
rows' and all columns' tables, and k by the one-hot codes of its own row and column: the plain dot
product of the longer vectors is score + bias, so any fused kernel computes it and no N x N tensor
is stored. On the CPU, with frozen weights, `cpu_attention` has a faster way to the same numbers.

Windows that reach over the edge cost what they are worth: SAM pads the map with zeros, whose query,
key and value are the projection's bias. So only real patches are projected and ask; the padding is
put beside their keys.

Source: paper section 3; segment_anything/modeling/image_encoder.py, `Attention` and `Block`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hsam import cpu_attention, sam
from hsam.windows import split, windows


class RelativePositionAttention(sam.EncoderAttention):
    """Multi-head attention over a grid of patches, whole or in windows.

    Parameters are named as in SAM, so its checkpoints load unchanged.
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
        tables = self.rel_pos_h, self.rel_pos_w
        for table in tables:
            if table.shape[0] != 2 * side - 1:
                raise ValueError(
                    f"relative positions: expected {2 * side - 1} rows for a side of {side} "
                    f"patches, got {table.shape[0]}"
                )
        qkv = self.qkv(x).reshape(batch, height, width, 3, self.num_heads, -1)
        padding = self._padding(qkv.dtype)
        written_out = cpu_attention.fits(qkv, *tables, padding)
        attend = cpu_attention.attend if written_out else _attend
        return self.proj(attend(qkv, *tables, padding, side, self.scale))

    def _padding(self, dtype: torch.dtype) -> Tensor:
        """Key and value of an all-zero patch: (2, heads, d)."""
        bias = self.qkv.bias
        if bias is None:
            bias = self.qkv.weight.new_zeros(self.qkv.weight.shape[0])
        return bias.to(dtype).reshape(3, self.num_heads, -1)[1:]


def _attend(
    qkv: Tensor, rows: Tensor, columns: Tensor, padding: Tensor, side: int, scale: float
) -> Tensor:
    """`cpu_attention.attend` for any device and precision, with gradients for all tensors."""
    strips = [
        _cat([_attend_equal(part, rows, columns, padding, side, scale) for part in strip], dim=2)
        for strip in split(qkv, side)
    ]
    return _cat(strips, dim=1)


def _attend_equal(
    qkv: Tensor, rows: Tensor, columns: Tensor, padding: Tensor, side: int, scale: float
) -> Tensor:
    """Attention inside equal windows."""
    q, k, v = (windows(x, side) for x in qkv.unbind(3))
    tall, wide, head_dim = q.shape[-3:]
    to_rows = torch.einsum("...hwc,hkc->...hwk", q, _relative(rows, tall, side))
    to_columns = torch.einsum("...hwc,wkc->...hwk", q, _relative(columns, wide, side))
    if (tall, wide) != (side, side):
        k, v = _pad(k, padding[0], side), _pad(v, padding[1], side)
    one_hot = torch.eye(side, dtype=q.dtype, device=q.device)
    codes = torch.cat([one_hot[:, None].expand(-1, side, -1), one_hot.expand(side, -1, -1)], dim=-1)
    # the kernel's scale belongs to the score alone, so the biases are divided by it beforehand
    q = torch.cat([q, to_rows / scale, to_columns / scale], dim=-1)
    k = torch.cat([k, codes.expand(*k.shape[:-3], -1, -1, -1)], dim=-1)
    v = F.pad(v, (0, 2 * side))  # fused kernels want one head size
    longer = (x.flatten(0, 2).flatten(2, 3) for x in (q, k, v))  # windows x heads x patches
    out = F.scaled_dot_product_attention(*longer, scale=scale)[..., :head_dim]
    # B x down x across x heads x tall x wide x d -> B x H x W x dim
    out = out.reshape(*q.shape[:-1], head_dim).permute(0, 1, 4, 2, 5, 3, 6)
    return out.reshape(*qkv.shape[:3], -1)


def _pad(x: Tensor, padding: Tensor, side: int) -> Tensor:
    """Fill windows up to side x side patches: ... x heads x tall x wide x d, heads x d."""
    *leading, tall, wide, _ = x.shape
    padding = padding[:, None, None]
    x = torch.cat([x, padding.expand(*leading, tall, side - wide, -1)], dim=-2)
    return torch.cat([x, padding.expand(*leading, side - tall, side, -1)], dim=-3)


def _cat(parts: list[Tensor], dim: int) -> Tensor:
    """Join parts without copying a single one."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def _relative(table: Tensor, queries: int, side: int) -> Tensor:
    """Rows of a [2 side - 1, d] table by query and key position: queries x side x d."""
    query = torch.arange(queries, device=table.device)
    key = torch.arange(side, device=table.device)
    return table[query[:, None] - key[None, :] + side - 1]

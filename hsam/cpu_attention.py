"""The encoder's attention on the CPU, with frozen weights: the same function in fewer passes.

Windows are cut out, lengthened and joined in place, and the gradient knows what the lengthening is
for. A fused kernel's own gradient spends as much on the keys' one-hot codes and the values' padding
as on the rest; here the scores of a few queries and heads are computed again, as many as the cache
holds, and the biases' gradients are sums over the keys' rows and columns.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from hsam.windows import split, windows

QUERIES = 256  # at a time in the gradient
SCORES = 2**18  # of a core at a time in the gradient: 1 MiB in float32


def fits(qkv: Tensor, *weights: Tensor) -> bool:
    """Whether `attend` takes these: float32 or float64 on the CPU, weights without gradients."""
    return (
        qkv.device.type == "cpu"
        and qkv.dtype in (torch.float32, torch.float64)
        and all(weight.dtype == qkv.dtype for weight in weights)
        and not (torch.is_grad_enabled() and any(weight.requires_grad for weight in weights))
        and not torch.compiler.is_compiling()
    )


def attend(
    qkv: Tensor, rows: Tensor, columns: Tensor, padding: Tensor, side: int, scale: float
) -> Tensor:
    """Attention inside windows, with SAM's decomposed relative positions.

    Args:
        qkv: (B, H, W, 3, heads, d).
        rows, columns: (2 side - 1, d): relative positions; they get no gradient.
        padding: (2, heads, d): key and value beyond the edge; they get no gradient.
        side: of a window in patches.
        scale: factor of the dot products.

    Returns:
        (B, H, W, heads * d).
    """
    return _Attention.apply(qkv, rows, columns, padding, side, scale)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        rows: Tensor,
        columns: Tensor,
        padding: Tensor,
        side: int,
        scale: float,
    ) -> Tensor:
        # from the last relative position to the first: along the keys of a query
        tables = torch.cat([rows.flip(0), columns.flip(0)])
        out = torch.empty_like(qkv[:, :, :, 0])
        longer = []
        for own, result in zip(_parts(qkv, side), _parts(out, side), strict=True):
            q, k, v = _lengthen(own, tables, padding, side, scale)
            longer += [q, k, v]
            result = windows(result, side)
            of_longer = F.scaled_dot_product_attention(q, k, v, scale=scale)
            result.copy_(of_longer[..., : result.shape[-1]].view(result.shape))
        ctx.save_for_backward(tables, out, *longer)
        ctx.side, ctx.scale = side, scale
        return out.flatten(3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tables, out, *longer = ctx.saved_tensors
        side = ctx.side
        gradient = gradient.reshape(out.shape)
        shift = torch.linalg.vecdot(gradient, out).unsqueeze(-1)
        of_qkv = out.new_empty(*out.shape[:3], 3, *out.shape[3:])
        parts = (_parts(x, side) for x in (of_qkv, gradient, shift))
        for index, (target, *of_out) in enumerate(zip(*parts, strict=True)):
            of_q, of_k, of_v = (windows(x, side) for x in target.unbind(3))
            q, k, v = _gradients(
                *longer[3 * index : 3 * index + 3],
                *(windows(x, side) for x in of_out),
                tables,
                ctx.scale,
            )
            of_q.copy_(q.view(of_q.shape))
            tall, wide, head_dim = of_q.shape[-3:]
            for real, whole in ((of_k, k), (of_v, v)):
                whole = whole.view(*real.shape[:-3], side, side, head_dim)
                real.copy_(whole[..., :tall, :wide, :])
        return of_qkv, None, None, None, None, None


def _parts(x: Tensor, side: int) -> Iterator[Tensor]:
    return (part for strip in split(x, side) for part in strip)


def _lengthen(
    qkv: Tensor, tables: Tensor, padding: Tensor, side: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries with their biases, keys with one-hot codes, values with zeros.

    Each is windows x heads x patches x (d + 2 side); keys and values are those of whole windows.
    """
    own_q, *own_kv = (windows(x, side) for x in qkv.unbind(3))
    *leading, tall, wide, head_dim = own_q.shape
    size = head_dim + 2 * side
    q = qkv.new_empty(*leading, tall, wide, size)
    k, v = qkv.new_empty(2, *leading, side, side, size)
    q[..., :head_dim] = own_q
    for whole, own, beyond in zip((k, v), own_kv, padding, strict=True):
        whole[..., :tall, :wide, :head_dim] = own
        if (tall, wide) != (side, side):
            whole[..., tall:, :, :head_dim] = beyond[:, None, None]
            whole[..., :tall, wide:, :head_dim] = beyond[:, None, None]
    one_hot = torch.eye(side, dtype=qkv.dtype)
    k[..., head_dim : head_dim + side] = one_hot[:, None]
    k[..., head_dim + side :] = one_hot
    v[..., head_dim:] = 0
    # the kernel's scale belongs to the score alone, so the biases are divided by it beforehand
    biases = q[..., :head_dim] @ (tables.T / scale)
    for place, own in zip((head_dim, head_dim + side), _own(biases, side), strict=True):
        q[..., place : place + side] = own
    q, k, v = (x.flatten(0, 2).flatten(2, 3) for x in (q, k, v))
    return q, k, v


def _own(biases: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Of products with all relative positions, those with the rows and the columns of a window.

    Args:
        biases: (..., tall, wide, 2 (2 side - 1)), contiguous.

    Returns:
        two views, (..., tall, wide, side). The product with row k is at k - y + side - 1, so the
        view starts one earlier with each y; that of the columns with each x.
    """
    shape = (*biases.shape[:-1], side)
    *leading, y, x, _ = biases.stride()
    start = biases.storage_offset() + side - 1
    return (
        biases.as_strided(shape, (*leading, y - 1, x, 1), start),
        biases.as_strided(shape, (*leading, y, x - 1, 1), start + 2 * side - 1),
    )


def _gradients(
    q: Tensor, k: Tensor, v: Tensor, gradient: Tensor, shift: Tensor, tables: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values of equal windows.

    Args:
        q, k, v: as `_lengthen` returns them.
        gradient: of the output, (B, down, across, heads, tall, wide, d).
        shift: dot products of output and gradient, (B, down, across, heads, tall, wide, 1).
        tables: relative positions, as in `_Attention`.
        scale: factor of the dot products.

    Returns:
        each (heads of all windows, patches, d).
    """
    tall, wide, head_dim = gradient.shape[-3:]
    side = (q.shape[-1] - head_dim) // 2
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    gradient, shift = (x.reshape(*q.shape[:2], -1) for x in (gradient, shift))
    biases = q[..., head_dim:].split(side, dim=-1)
    q, k, v = (x[..., :head_dim] for x in (q, k, v))
    of_q, of_k, of_v = (x.new_empty(x.shape) for x in (q, k, v))
    of_biases = q.new_zeros(len(q), tall, wide, len(tables))
    for heads, rows in _shares(len(q), tall, wide, side):
        queries = slice(rows.start * wide, rows.stop * wide)
        beta = 1 if rows.start else 0  # keys and values collect from all queries
        own, from_out = q[heads, queries], gradient[heads, queries]
        to_rows, to_columns = (x[heads, queries] for x in biases)
        scores = (to_rows[..., None] + to_columns[..., None, :]).flatten(2)
        scores.baddbmm_(own, k[heads].mT, beta=scale, alpha=scale)
        weights = scores.softmax(-1)
        of_v[heads].baddbmm_(weights.mT, from_out, beta=beta)
        of_scores = torch.bmm(from_out, v[heads].mT, out=scores)
        of_scores.sub_(shift[heads, queries]).mul_(weights)
        of_q[heads, queries] = torch.bmm(of_scores, k[heads]).mul_(scale)
        of_k[heads].baddbmm_(of_scores.mT, own, beta=beta, alpha=scale)
        grid = of_scores.view(len(own), -1, wide, side, side)
        for target, axis in zip(_own(of_biases, side), (-1, -2), strict=True):
            target[heads, rows] = grid.sum(axis)
    of_q.flatten(0, 1).addmm_(of_biases.flatten(0, 2), tables)
    return of_q, of_k, of_v


def _shares(heads: int, tall: int, wide: int, side: int) -> Iterator[tuple[slice, slice]]:
    """Heads, and rows of their queries, to compute together; all rows of some heads in turn."""
    rows = min(tall, max(1, QUERIES // wide))
    most = max(1, torch.get_num_threads() * SCORES // (rows * wide * side**2))
    at_once = -(-heads // -(-heads // most))  # shares of equal size
    for head in range(0, heads, at_once):
        for row in range(0, tall, rows):
            yield slice(head, head + at_once), slice(row, min(row + rows, tall))

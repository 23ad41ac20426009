"""The encoder's attention on the CPU, with frozen weights: written out, as much as the cache holds.

A fused kernel has to carry the relative positions as additional numbers of each head, in queries,
keys and values, forward and back. Here the scores of a few queries and heads at a time are computed
with their biases and used at once. Their softmax, which the gradient needs again, is kept for up to
KEPT keys and computed again for more. Windows are cut out and joined in place.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hsam.windows import split, windows

QUERIES = 256  # at a time
SCORES = 2**18  # of a core at a time: 1 MiB in float32
KEPT = 1024  # keys of a query: 50 MB a global block and slice at ViT-B and 512 px


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
        keep = ctx.needs_input_grad[0] and side**2 <= KEPT
        saved: list[Tensor] = []
        ctx.shares, ctx.kept = [], keep
        for own, result in zip(_parts(qkv, side), _parts(out, side), strict=True):
            result = windows(result, side)
            tall, wide = result.shape[-3:-1]
            q, k, v = _heads(own, padding, side)
            biases = _biases(q, tables, tall, wide)
            attended = torch.empty_like(q)
            saved += [q, k, v]
            ctx.shares.append(list(_shares(len(q), tall, wide, side)))
            for share in ctx.shares[-1]:
                weights = _weights(q, k, biases, share, scale)
                attended[share.index] = torch.bmm(weights, v[share.heads])
                if keep:
                    saved.append(weights)
            result.copy_(attended.view(result.shape))
        ctx.save_for_backward(tables, out, *saved)
        ctx.side, ctx.scale = side, scale
        return out.flatten(3)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tables, out, *saved = ctx.saved_tensors
        remaining = iter(saved)
        side = ctx.side
        gradient = gradient.reshape(out.shape)
        shift = torch.linalg.vecdot(gradient, out).unsqueeze(-1)
        of_qkv = out.new_empty(*out.shape[:3], 3, *out.shape[3:])
        parts = (_parts(x, side) for x in (of_qkv, gradient, shift))
        for shares, target, *of_out in zip(ctx.shares, *parts, strict=True):
            of_q, of_k, of_v = (windows(x, side) for x in target.unbind(3))
            tall, wide, head_dim = of_q.shape[-3:]
            own = [next(remaining) for _ in range(3)]
            weights = [next(remaining) for _ in shares] if ctx.kept else None
            of_out = (windows(x, side) for x in of_out)
            q, k, v = _gradients(*own, weights, *of_out, tables, shares, ctx.scale)
            of_q.copy_(q.view(of_q.shape))
            for real, whole in ((of_k, k), (of_v, v)):
                whole = whole.view(*real.shape[:-3], side, side, head_dim)
                real.copy_(whole[..., :tall, :wide, :])
        return of_qkv, None, None, None, None, None


class Share(NamedTuple):
    """Some heads, and the queries of some rows of their windows, to compute together."""

    heads: slice
    rows: slice
    wide: int

    @property
    def index(self) -> tuple[slice, slice]:
        """Into (heads, patches, ...)."""
        return self.heads, slice(self.rows.start * self.wide, self.rows.stop * self.wide)


def _parts(x: Tensor, side: int) -> Iterator[Tensor]:
    return (part for strip in split(x, side) for part in strip)


def _heads(qkv: Tensor, padding: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each heads of all windows x patches x d.

    Keys and values are those of whole windows.
    """
    q, *own_kv = (windows(x, side) for x in qkv.unbind(3))
    *leading, tall, wide, head_dim = q.shape
    kv = qkv.new_empty(2, *leading, side, side, head_dim)
    for whole, own, beyond in zip(kv, own_kv, padding, strict=True):
        whole[..., :tall, :wide, :] = own
        if (tall, wide) != (side, side):
            whole[..., tall:, :, :] = beyond[:, None, None]
            whole[..., :tall, wide:, :] = beyond[:, None, None]
    k, v = kv.flatten(1, 4).flatten(2, 3)
    return q.reshape(len(k), tall * wide, head_dim).contiguous(), k, v


def _biases(q: Tensor, tables: Tensor, tall: int, wide: int) -> tuple[Tensor, Tensor]:
    """Of the queries, by the rows and by the columns of their windows: heads x tall x wide x side.

    Args:
        q: heads x patches x d.
        tables: relative positions, as in `_Attention`.
    """
    products = (q.flatten(0, 1) @ tables.T).view(len(q), tall, wide, -1)
    return _own(products, (len(tables) // 2 + 1) // 2)


def _own(products: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Of products with all relative positions, those with the rows and the columns of a window.

    Args:
        products: (..., tall, wide, 2 (2 side - 1)), contiguous.

    Returns:
        two views, (..., tall, wide, side). The product with row k is at k - y + side - 1, so the
        view starts one earlier with each y; that of the columns with each x.
    """
    shape = (*products.shape[:-1], side)
    *leading, y, x, _ = products.stride()
    start = products.storage_offset() + side - 1
    return (
        products.as_strided(shape, (*leading, y - 1, x, 1), start),
        products.as_strided(shape, (*leading, y, x - 1, 1), start + 2 * side - 1),
    )


def _shares(heads: int, tall: int, wide: int, side: int) -> Iterator[Share]:
    """All rows of some heads, then of the next."""
    rows = min(tall, max(1, QUERIES // wide))
    most = max(1, torch.get_num_threads() * SCORES // (rows * wide * side**2))
    at_once = -(-heads // -(-heads // most))  # shares of equal size
    for head in range(0, heads, at_once):
        for row in range(0, tall, rows):
            yield Share(slice(head, head + at_once), slice(row, min(row + rows, tall)), wide)


def _weights(
    q: Tensor, k: Tensor, biases: tuple[Tensor, Tensor], share: Share, scale: float
) -> Tensor:
    """Softmaxed scores of a share: its heads x its queries x keys."""
    to_rows, to_columns = (x[share.heads, share.rows] for x in biases)
    scores = (to_rows[..., None] + to_columns[..., None, :]).flatten(3).flatten(1, 2)
    return scores.baddbmm_(q[share.index], k[share.heads].mT, alpha=scale).softmax(-1)


def _gradients(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kept: Sequence[Tensor] | None,
    gradient: Tensor,
    shift: Tensor,
    tables: Tensor,
    shares: Sequence[Share],
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of queries, keys and values of equal windows, of the same shapes.

    Args:
        q, k, v: as `_heads` returns them.
        kept: weights of each share; None: to be computed again.
        gradient: of the output, (B, down, across, heads, tall, wide, d).
        shift: dot products of output and gradient, (B, down, across, heads, tall, wide, 1).
        tables: relative positions, as in `_Attention`.
        shares: which together are all queries.
        scale: factor of the dot products.
    """
    tall, wide = gradient.shape[-3:-1]
    side = (len(tables) // 2 + 1) // 2
    gradient, shift = (x.reshape(*q.shape[:2], -1) for x in (gradient, shift))
    biases = None if kept is not None else _biases(q, tables, tall, wide)
    of_q, of_k, of_v = (torch.empty_like(x) for x in (q, k, v))
    of_biases = q.new_zeros(len(q), tall, wide, len(tables))
    for number, share in enumerate(shares):
        heads = share.heads
        weights = _weights(q, k, biases, share, scale) if kept is None else kept[number]
        beta = 1 if share.rows.start else 0  # keys and values collect from all queries
        own, from_out = q[share.index], gradient[share.index]
        of_v[heads].baddbmm_(weights.mT, from_out, beta=beta)
        of_scores = torch.bmm(from_out, v[heads].mT).sub_(shift[share.index]).mul_(weights)
        of_q[share.index] = torch.bmm(of_scores, k[heads]).mul_(scale)
        of_k[heads].baddbmm_(of_scores.mT, own, beta=beta, alpha=scale)
        grid = of_scores.view(len(own), -1, wide, side, side)
        for target, axis in zip(_own(of_biases, side), (-1, -2), strict=True):
            target[heads, share.rows] = grid.sum(axis)
    of_q.flatten(0, 1).addmm_(of_biases.flatten(0, 2), tables)
    return of_q, of_k, of_v

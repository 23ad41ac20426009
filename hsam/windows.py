"""Splitting a grid of patches into attention windows, without copies."""

from torch import Tensor


def split(x: Tensor, side: int) -> list[tuple[Tensor, ...]]:
    """Split a grid into parts whose windows have equal shapes.

    Where `side` doesn't divide the grid, the windows at the lower and right edges are smaller.

    Args:
        x: (B, H, W, ...).
        side: side of a window in patches.

    Returns:
        at most two strips from top to bottom, each of at most two parts from left to right: whole
        windows first, then those at the edge. All are views.
    """
    # Tensor.split, not slicing: the gradient of each slice would be as large as the whole grid
    return [
        strip.split(_lengths(x.shape[2], side), dim=2)
        for strip in x.split(_lengths(x.shape[1], side), dim=1)
    ]


def windows(x: Tensor, side: int) -> Tensor:
    """The windows of one part of `split`.

    Args:
        x: (B, H, W, heads, d); H and W are multiples of `side`, or less than it.
        side: side of a window in patches.

    Returns:
        a view (B, down, across, heads, height, width, d): down x across windows of height x width
        patches.
    """
    height, width = min(side, x.shape[1]), min(side, x.shape[2])
    x = x.unflatten(2, (-1, width)).unflatten(1, (-1, height))
    return x.permute(0, 1, 3, 5, 2, 4, 6)


def _lengths(length: int, side: int) -> list[int]:
    """A length as the largest multiple of `side`, then the remainder; zeros are left out."""
    return [part for part in (length // side * side, length % side) if part]

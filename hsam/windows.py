"""Views of a map of patches, window by window."""

from torch import Tensor


def split(x: Tensor, side: int) -> list[tuple[Tensor, ...]]:
    """The parts of a map whose windows are equal.

    Args:
        x: (B, H, W, ...).
        side: of a window in patches.

    Returns:
        strips from top to bottom, each from left to right: whole windows, windows over an edge,
        the one over the corner; at most two by two views.
    """
    # not slices: each of them would get a gradient of the whole's size
    return [
        strip.split(_lengths(x.shape[2], side), dim=2)
        for strip in x.split(_lengths(x.shape[1], side), dim=1)
    ]


def windows(x: Tensor, side: int) -> Tensor:
    """The windows of one of `split`'s parts.

    Args:
        x: (B, H, W, heads, d); H and W are whole numbers of windows, or less than one.
        side: of a window in patches.

    Returns:
        a view, (B, down, across, heads, tall, wide, d), with the tall x wide real patches of each
        of the down x across windows.
    """
    tall, wide = min(side, x.shape[1]), min(side, x.shape[2])
    x = x.unflatten(2, (-1, wide)).unflatten(1, (-1, tall))
    return x.permute(0, 1, 3, 5, 2, 4, 6)


def _lengths(length: int, side: int) -> list[int]:
    return [part for part in (length // side * side, length % side) if part]

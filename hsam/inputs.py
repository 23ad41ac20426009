"""Checks of images, labels and number of classes, which all models share."""

import torch
from torch import Tensor


def check_images(image: Tensor, image_size: int, dtype: torch.dtype) -> Tensor:
    """Check images, and convert them to (B, 3, S, S) in the model's dtype.

    Args:
        image: (B, 1, S, S), (B, 2, S, S) or (B, 3, S, S), floating, in [0, 1]. One channel is
            repeated; two are followed by their mean, which keeps the third input within the range
            of the pretraining.
        image_size: S in pixels.
        dtype: dtype of the model.

    Raises:
        TypeError: integer images.
        ValueError: another shape.
    """
    if not image.is_floating_point():
        raise TypeError(
            f"image: expected a floating dtype with values in [0, 1], got {image.dtype}"
        )
    if image.ndim != 4 or image.shape[1] not in (1, 2, 3) or image.shape[2:] != (image_size,) * 2:
        raise ValueError(
            f"image: expected (B, 1 to 3, {image_size}, {image_size}), got {tuple(image.shape)}"
        )
    image = image.to(dtype)
    if image.shape[1] == 2:
        return torch.cat([image, image.mean(1, keepdim=True)], 1)
    return image.expand(-1, 3, -1, -1)


def check_embedding(embedding: Tensor | None, grid: int, dtype: torch.dtype) -> Tensor:
    """Check embeddings that were computed before, and convert them to the model's dtype.

    Args:
        embedding: (B, D, G, G), floating.
        grid: G.
        dtype: dtype of the model.

    Raises:
        ValueError: another shape or dtype.
    """
    if embedding is None or not embedding.is_floating_point() or embedding.ndim != 4:
        raise ValueError("embedding: expected a floating tensor of shape (B, D, G, G)")
    if embedding.shape[2:] != (grid, grid):
        raise ValueError(f"embedding: expected a grid of {grid}, got {tuple(embedding.shape)}")
    return embedding.to(dtype)


def check_labels(labels: Tensor | None, batch: int, image_size: int) -> None:
    """Check that labels, if any, are integers of shape (B, S, S).

    Raises:
        TypeError: floating labels.
        ValueError: another shape.
    """
    if labels is None:
        return
    if labels.is_floating_point():
        raise TypeError(f"labels: expected an integer dtype, got {labels.dtype}")
    if labels.shape != (batch, image_size, image_size):
        raise ValueError(
            f"labels: expected ({batch}, {image_size}, {image_size}), got {tuple(labels.shape)}"
        )


def check_classes(num_classes: int) -> int:
    """Number of classes C, background included, for a number of organs.

    Raises:
        ValueError: `num_classes` is no integer from 1.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes: expected an integer from 1, got {num_classes!r}")
    return num_classes + 1

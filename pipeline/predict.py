"""From a volume's slices to a label volume, with a model of `hsam`."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hsam import SegmentationModel
from pipeline.slices import resize_images, resize_logits


def predict_volume(
    model: SegmentationModel,
    images: NDArray[np.float32],
    *,
    stage: str = "mean",
    batch_size: int = 16,
    device: str = "cpu",
) -> NDArray[np.uint8]:
    """Label every voxel of a volume by one stage; see `predict_stages`.

    Returns:
        (slices, rows, columns), 0 for the background.
    """
    return predict_stages(model, images, [stage], batch_size=batch_size, device=device)[stage]


@torch.inference_mode()
def predict_stages(
    model: SegmentationModel,
    images: NDArray[np.float32],
    stages: Sequence[str],
    *,
    batch_size: int = 16,
    device: str = "cpu",
) -> dict[str, NDArray[np.uint8]]:
    """Label every voxel of a volume, slice by slice, by several stages in one pass.

    Slices are resized to the model's side as in training; the logits are resized back before the
    largest is taken. The same call on the same machine gives the same labels.

    Args:
        model: one of `hsam`: `model.image_size` is its side S; called with (B, 1, S, S) float32
            in [0, 1], its answer's `logits(stage)` are (B, C, S, S). Its training mode is put back
            afterwards.
        images: (slices, rows, columns) in [0, 1].
        stages: of "mean", "coarse" and "fine".
        batch_size: slices per forward pass.
        device: where the model is.

    Returns:
        Stage to (slices, rows, columns), 0 for the background.

    Raises:
        ValueError: images that are no volume, a batch size below 1, or a stage that the model
            doesn't have.
    """
    if images.ndim != 3:
        raise ValueError(f"images: expected (slices, rows, columns), got shape {images.shape}")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
    labels = {stage: np.empty(images.shape, np.uint8) for stage in stages}
    plane, side = images.shape[1:], (model.image_size, model.image_size)
    was_training = model.training
    model.eval()
    try:
        for first in range(0, len(images), batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(images[first : first + batch_size]))
            batch = batch.to(device).unsqueeze(1)  # B x 1 x H x W
            output = model(resize_images(batch, side))
            for stage, volume in labels.items():
                winner = resize_logits(output.logits(stage), plane).argmax(1)  # B x H x W
                volume[first : first + len(batch)] = winner.to(torch.uint8).cpu().numpy()
    finally:
        model.train(was_training)
    return labels


@torch.inference_mode()
def model_stages(model: SegmentationModel, device: str = "cpu") -> tuple[str, ...]:
    """The stages that a model has: "mean", "coarse" and "fine", or "mean" and its only one."""
    was_training = model.training
    model.eval()
    try:
        output = model(torch.zeros(1, 1, model.image_size, model.image_size, device=device))
    finally:
        model.train(was_training)
    own = [name for name in ("coarse", "fine") if getattr(output, f"{name}_logits") is not None]
    return ("mean", *own)

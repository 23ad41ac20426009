"""Predicting a volume slice by slice: what validation, evaluation and `hsam predict` share."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsam.model import SegmentationModel
from pipeline.imaging.resize import resize_images, resize_logits

# model, images (B, 1, S, S) and names of stages -> stage to logits (B, C, S, S)
Forward = Callable[[SegmentationModel, Tensor, Sequence[str]], dict[str, Tensor]]


class Slices(Protocol):
    """The images of a volume, read batch by batch: an array, or a view of a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(slices, rows, columns)."""

    def __getitem__(self, index: slice) -> NDArray[np.float32]:
        """(B, rows, columns) float32 in [0, 1]."""


def predict_volume(
    model: SegmentationModel,
    images: Slices,
    *,
    stage: str = "mean",
    batch_size: int = 16,
    device: str = "cpu",
) -> NDArray[np.uint8]:
    """Label every voxel of a volume with one stage of the model.

    Slices are resized to the model's side S as in training; logits are resized back to the slices
    before the largest is taken. The same call on the same machine gives the same labels.

    Args:
        model: of `hsam`; set to eval mode meanwhile.
        images: (slices, rows, columns) float32 in [0, 1].
        stage: "mean", "coarse" or "fine".
        batch_size: slices per forward pass.
        device: where the model is.

    Returns:
        (slices, rows, columns), class indices, 0 for the background.

    Raises:
        ValueError: images that are no volume, a batch size below 1, or a stage that the model
            lacks.
    """
    labels = predict_stages(model, images, [stage], batch_size=batch_size, device=device)
    return labels[stage]


def predict_stages(
    model: SegmentationModel,
    images: Slices,
    stages: Sequence[str],
    *,
    batch_size: int = 16,
    device: str = "cpu",
) -> dict[str, NDArray[np.uint8]]:
    """Labels of several stages from a single forward pass; otherwise as `predict_volume`.

    Returns:
        Stage to class indices (slices, rows, columns), in the order of `stages`.
    """
    labels = {stage: np.empty(images.shape, np.uint8) for stage in stages}
    for index, stage, logits in predict_slices(
        model, images, stages, batch_size=batch_size, device=device
    ):
        labels[stage][index] = winner(logits)
    return labels


def winner(logits: Tensor) -> NDArray[np.uint8]:
    """Logits (C, H, W) -> (H, W), the class with the largest logit, the first among equal ones."""
    # several times faster on the CPU than argmax, with the same choice among equal ones
    return logits.max(0).indices.to(torch.uint8).cpu().numpy()


def forward(model: SegmentationModel, images: Tensor, stages: Sequence[str]) -> dict[str, Tensor]:
    """Images (B, 1, S, S) -> stage to logits (B, C, S, S), in one forward pass."""
    answer = model(images)
    return {stage: answer.logits(stage) for stage in stages}


@torch.inference_mode()
def predict_slices(
    model: SegmentationModel,
    images: Slices,
    stages: Sequence[str],
    *,
    batch_size: int = 16,
    device: str = "cpu",
    forward: Forward = forward,
) -> Iterator[tuple[int, str, Tensor]]:
    """Logits of each stage, slice by slice, resized to the size of the slice.

    One batch at the model's size and one slice at the volume's are in memory at a time.

    Args:
        model, images, batch_size, device: as for `predict_volume`.
        stages: names among "mean", "coarse", "fine".
        forward: how a batch becomes logits; `tta.averaged` averages several forward passes.

    Yields:
        Index of the slice, stage, logits (C, rows, columns) on the device.

    Raises:
        ValueError: as for `predict_volume`.
    """
    if len(images.shape) != 3:
        raise ValueError(f"images: expected (slices, rows, columns), got shape {images.shape}")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
    plane, side = (images.shape[1], images.shape[2]), (model.image_size, model.image_size)
    was_training = model.training
    model.eval()
    try:
        for first in range(0, images.shape[0], batch_size):
            batch = torch.from_numpy(np.ascontiguousarray(images[first : first + batch_size]))
            batch = resize_images(batch.to(device).unsqueeze(1), side)  # B x 1 x S x S
            by_stage = forward(model, batch, stages)
            for index in range(len(batch)):
                for stage, logits in by_stage.items():
                    yield first + index, stage, resize_logits(logits[index, None], plane)[0]
    finally:
        model.train(was_training)


@torch.inference_mode()
def model_stages(model: SegmentationModel, device: str = "cpu") -> tuple[str, ...]:
    """Names of the stages that a model has: "mean", then "coarse" and "fine" where it has them."""
    was_training = model.training
    model.eval()
    try:
        output = model(torch.zeros(1, 1, model.image_size, model.image_size, device=device))
    finally:
        model.train(was_training)
    stages = [name for name in ("coarse", "fine") if getattr(output, f"{name}_logits") is not None]
    return ("mean", *stages)

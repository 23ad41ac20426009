"""From a volume's slices to a label volume, with a model of `hsam`.

The one way from images to labels: validation, evaluation and `hsam predict` all take it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsam.model import SegmentationModel
from pipeline.imaging.resize import resize_images, resize_logits

# (model, images (B, 1, S, S), stages) -> stage to logits (B, C, S, S)
Forward = Callable[[SegmentationModel, Tensor, Sequence[str]], dict[str, Tensor]]


class Slices(Protocol):
    """A volume that gives its slices batch by batch; an array does, and so does a file's view."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(slices, rows, columns)."""

    def __getitem__(self, index: slice) -> NDArray[np.float32]:
        """(B, rows, columns) in [0, 1]."""


def predict_volume(
    model: SegmentationModel,
    images: Slices,
    *,
    stage: str = "mean",
    batch_size: int = 16,
    device: str = "cpu",
) -> NDArray[np.uint8]:
    """Label every voxel of a volume, slice by slice.

    Slices are resized to the model's side as in training; the logits are resized back before the
    largest is taken. The same call on the same machine gives the same labels.

    Args:
        model: one of `hsam`: `model.image_size` is its side S; called with (B, 1, S, S) float32
            in [0, 1], its answer's `logits(stage)` are (B, C, S, S). Its training mode is put back
            afterwards.
        images: (slices, rows, columns) in [0, 1].
        stage: "mean", "coarse" or "fine".
        batch_size: slices per forward pass.
        device: where the model is.

    Returns:
        (slices, rows, columns), 0 for the background.

    Raises:
        ValueError: images that are no volume, a batch size below 1, or a stage that the model
            doesn't have.
    """
    found = predict_stages(model, images, [stage], batch_size=batch_size, device=device)
    return found[stage]


def predict_stages(
    model: SegmentationModel,
    images: Slices,
    stages: Sequence[str],
    *,
    batch_size: int = 16,
    device: str = "cpu",
) -> dict[str, NDArray[np.uint8]]:
    """The labels of several stages from one forward pass a slice; see `predict_volume`.

    Returns:
        stage to (slices, rows, columns), in the order asked for.
    """
    labels = {stage: np.empty(images.shape, np.uint8) for stage in stages}
    for index, stage, logits in predict_slices(
        model, images, stages, batch_size=batch_size, device=device
    ):
        labels[stage][index] = winner(logits)
    return labels


def winner(logits: Tensor) -> NDArray[np.uint8]:
    """(C, H, W) -> (H, W), the class with the largest logit; of equal ones the first."""
    # several times faster on the CPU than argmax, and of equal ones also the first
    return logits.max(0).indices.to(torch.uint8).cpu().numpy()


def forward(model: SegmentationModel, images: Tensor, stages: Sequence[str]) -> dict[str, Tensor]:
    """Logits of the stages, (B, C, S, S) each, from one pass over (B, 1, S, S)."""
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
    """Slice by slice, the logits of each stage at the slice's own size.

    One batch at the model's size and one slice at its own size are in memory at a time.

    Args:
        model, images, batch_size, device: as for `predict_volume`.
        stages: each of "mean", "coarse", "fine"; one forward pass serves all of them.
        forward: how a batch becomes logits; `views.averaged` looks more than once.

    Yields:
        index of the slice, stage, logits (C, rows, columns) on the device.

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
            found = forward(model, batch, stages)
            for index in range(len(batch)):
                for stage, logits in found.items():
                    yield first + index, stage, resize_logits(logits[index, None], plane)[0]
    finally:
        model.train(was_training)


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

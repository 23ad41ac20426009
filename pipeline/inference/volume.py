"""Predicting a volume slice by slice: what validation, evaluation and `hsam predict` share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsam.model import SegmentationModel
from hsam.registry import MODELS
from pipeline.inference.resizing import LINEAR, Resizing

# model, images (B, C, S, S) and names of stages -> stage to logits (B, C, S, S)
Forward = Callable[[SegmentationModel, Tensor, Sequence[str]], dict[str, Tensor]]
STEPS = 255  # probabilities are kept as uint8, in steps of 1 / 255


class Slices(Protocol):
    """The images of a volume, read batch by batch: an array, or a view of a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(slices, rows, columns), or (slices, C, rows, columns) of several channels."""

    def __getitem__(self, index: slice) -> NDArray[np.float32]:
        """(B, rows, columns) or (B, C, rows, columns) float32 in [0, 1]."""


def forward(model: SegmentationModel, images: Tensor, stages: Sequence[str]) -> dict[str, Tensor]:
    """Images (B, C, S, S) -> stage to logits (B, C, S, S), in one forward pass."""
    answer = model(images)
    return {stage: answer.logits(stage) for stage in stages}


def predict_volume(
    model: SegmentationModel,
    images: Slices,
    *,
    stage: str = "mean",
    batch_size: int = 16,
    device: str = "cpu",
    forward: Forward = forward,
    resizing: Resizing = LINEAR,
) -> NDArray[np.uint8]:
    """Label every voxel of a volume with one stage of the model.

    Slices are resized to the model's side S as in training; its answer is resized back to the
    slices. The same call on the same machine gives the same labels.

    Args:
        model: of `hsam`; set to eval mode meanwhile.
        images: (slices, rows, columns) or (slices, C, rows, columns) float32 in [0, 1].
        stage: "mean", "coarse" or "fine".
        batch_size: slices per forward pass.
        device: where the model is.
        forward: how a batch becomes logits; `tta.averaged` averages several forward passes.
        resizing: both ways.

    Returns:
        (slices, rows, columns), class indices, 0 for the background.

    Raises:
        ValueError: images that are no volume, a batch size below 1, or a stage that the model
            lacks.
    """
    labels = predict_stages(
        model,
        images,
        [stage],
        batch_size=batch_size,
        device=device,
        forward=forward,
        resizing=resizing,
    )
    return labels[stage]


def predict_stages(
    model: SegmentationModel,
    images: Slices,
    stages: Sequence[str],
    *,
    batch_size: int = 16,
    device: str = "cpu",
    forward: Forward = forward,
    resizing: Resizing = LINEAR,
) -> dict[str, NDArray[np.uint8]]:
    """Labels of several stages from a single forward pass; otherwise as `predict_volume`.

    Returns:
        Stage to class indices (slices, rows, columns), in the order of `stages`.
    """
    shape = (images.shape[0], *images.shape[-2:])
    labels = {stage: np.empty(shape, np.uint8) for stage in stages}
    for batch in predict_batches(
        model,
        images,
        stages,
        batch_size=batch_size,
        device=device,
        forward=forward,
        resizing=resizing,
    ):
        batch.put(labels)
    return labels


@dataclass(frozen=True, eq=False)
class Batch:
    """What a model says of B consecutive slices, at the size of the slices.

    Attributes:
        first: index of the first one.
        labels: stage to class indices (B, rows, columns).
        probabilities: (C, B, rows, columns) in steps of 1 / STEPS, where they were asked for.
    """

    first: int
    labels: dict[str, NDArray[np.uint8]]
    probabilities: NDArray[np.uint8] | None

    def __len__(self) -> int:
        return len(next(iter(self.labels.values())))

    def put(self, labels: dict[str, NDArray[np.uint8]]) -> None:
        """Write the labels into those of the whole volume, by stage."""
        for stage, values in self.labels.items():
            labels[stage][self.first : self.first + len(self)] = values


@torch.inference_mode()
def predict_batches(
    model: SegmentationModel,
    images: Slices,
    stages: Sequence[str],
    *,
    batch_size: int = 16,
    device: str = "cpu",
    forward: Forward = forward,
    resizing: Resizing = LINEAR,
    probabilities: str | None = None,
) -> Iterator[Batch]:
    """Labels of each stage, batch by batch.

    They are chosen on the device and leave it once a batch. One batch of logits at the model's
    size and one slice's at the volume's are in memory at a time.

    Args:
        model, images, batch_size, device, forward, resizing: as for `predict_volume`.
        stages: names among "mean", "coarse", "fine".
        probabilities: the stage whose probabilities are wanted too; None: of none.

    Raises:
        ValueError: as for `predict_volume`.
    """
    if len(images.shape) not in (3, 4):
        raise ValueError(
            "images: expected (slices, rows, columns) or (slices, channels, rows, columns), got "
            f"shape {images.shape}"
        )
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
    plane, side = (images.shape[-2], images.shape[-1]), (model.image_size, model.image_size)
    was_training = model.training
    model.eval()
    try:
        for first in range(0, images.shape[0], batch_size):
            part = images[first : first + batch_size]
            by_stage = forward(model, resizing.to_model(part, side, device), stages)
            shape = (len(part), *plane)
            labels = torch.empty((len(stages), *shape), dtype=torch.uint8, device=device)
            shares = None
            if probabilities is not None:
                classes = by_stage[probabilities].shape[1]
                shares = torch.empty((classes, *shape), dtype=torch.uint8, device=device)
            for index in range(len(part)):
                for row, stage in enumerate(stages):
                    logits = resizing.to_slices(by_stage[stage][index, None], plane)[0]
                    labels[row, index] = winner(logits)
                    if shares is not None and stage == probabilities:
                        shares[:, index] = logits.float().softmax(0).mul(STEPS).round()
            yield Batch(
                first,
                dict(zip(stages, labels.cpu().numpy(), strict=True)),
                None if shares is None else shares.cpu().numpy(),
            )
    finally:
        model.train(was_training)


def winner(logits: Tensor) -> Tensor:
    """Logits (C, H, W) -> (H, W), the class with the largest logit, the first among equal ones."""
    # several times faster on the CPU than argmax, with the same choice among equal ones
    return logits.max(0).indices


def model_stages(model: SegmentationModel) -> tuple[str, ...]:
    """Names of the stages that a model has: "mean", then "coarse" and "fine" where it has them."""
    return ("mean", *MODELS[model.config["model"]].stages)

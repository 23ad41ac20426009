"""Augmentation of whole batches on their device: each image and label is resampled once.

The published recipe: a share of the slices is rotated; of the others, a share is cropped and
enlarged; of those left, a share is deformed elastically. Each transform is a sampling grid, so a
slice is interpolated once, from the pixels of its shard to those of the model. Where the model's
pixels are larger, an image is sampled on a finer grid and averaged, against aliasing.

Every sample has a seed of its own (`sample_seeds`), from which its transform is drawn on the CPU:
it depends neither on the batch nor on the device or the number of workers.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pipeline.core.params.blocks import Augment
from pipeline.imaging.resize import resize_images, resize_labels

# nodes of a deformation's noise outside of each border, one sigma apart; a Gaussian is 0.01 there
MARGIN = 3
CPU_CHUNK = 4  # samples resampled together on a CPU, so that their grids stay in its cache
SPACING = 1.15  # largest distance, in pixels of the slice, between two points of a sampling grid


@dataclass(frozen=True)
class Draw:
    """The transform of one sample.

    Attributes:
        matrix: (2, 3), from (x, y, 1) in the output to (x, y) in the input, both in [-1, 1].
        nodes: (2, M, M) noise whose smoothed version is an elastic deformation; None: no
            deformation.
        exponents: (C,), gamma, to which the intensities of each channel are raised.
        noise: (C, S, S) noise to add to the intensities; None: no noise.
    """

    matrix: NDArray[np.float64]
    nodes: NDArray[np.float32] | None
    exponents: NDArray[np.float64]
    noise: NDArray[np.float32] | None


def sample_seeds(seed: int, epoch: int, samples: Tensor) -> Tensor:
    """A seed for each sample of an epoch: the raw numbers of Philox with the key (seed, epoch).

    Args:
        seed: of the training, `Params.seed_of("train")`.
        epoch: from 0.
        samples: (B,) integers from 0 that tell the samples of an epoch apart: their places in its
            order, or dataset indices where no slice comes twice.

    Returns:
        (B,) int64 on the CPU, 0 or more; sample s gets number s of the stream.
    """
    wanted = samples.cpu().numpy()
    stream = np.random.Philox(key=np.array([seed, epoch], np.uint64))
    numbers = stream.random_raw(int(wanted.max(initial=-1)) + 1)
    return torch.from_numpy((numbers[wanted] >> np.uint64(1)).astype(np.int64))


def augment(
    images: Sequence[Tensor],
    labels: Sequence[Tensor],
    settings: Augment,
    seeds: Tensor,
    size: int,
) -> tuple[Tensor, Tensor]:
    """Transform every sample as its seed says, and resample it to the side of the model.

    Args:
        images: B images (H, W), or (C, H, W) of several channels, float32 in [0, 1], whose sizes
            may differ, or (B, H, W). They are interpolated bilinearly, with 0 outside. Channels are
            moved together; each has contrast and noise of its own.
        labels: B labels (H, W) uint8. A pixel gets the label nearest to its centre, 0 outside.
        settings: the block `train.augment`: shares and ranges of the transforms.
        seeds: (B,) int64, from `sample_seeds`.
        size: S, the model's side.

    Returns:
        Images (B, C, S, S) float32 in [0, 1] and labels (B, S, S) uint8, on the same device. A
        sample without a transform is exactly what `resize_images` and `resize_labels` give.
    """
    channels = 1 if images[0].ndim == 2 else len(images[0])
    draws = [draw(settings, seed, size, channels) for seed in seeds.tolist()]
    resampled: dict[int, tuple[Tensor, Tensor]] = {}
    for factors, chunk in _chunks(images, draws, size):
        image = torch.stack([images[index] for index in chunk])
        image = image.view(len(chunk), channels, *image.shape[-2:])
        label = torch.stack([labels[index] for index in chunk])
        if factors is None:
            image, label = resize_images(image, (size, size)), resize_labels(label, (size, size))
        else:
            some = [draws[index] for index in chunk]
            image, label = _resample(image, label, some, settings.elastic_sigma, size, factors)
        resampled.update(zip(chunk, zip(image, label, strict=True), strict=True))
    image, label = (
        torch.stack([resampled[index][part] for index in range(len(draws))]) for part in (0, 1)
    )
    return _intensities(image, draws), label


def draw(settings: Augment, seed: int, side: int, channels: int = 1) -> Draw:
    """Draw the transform of a sample of C channels; `side` is S, the side of the model."""
    random = np.random.Generator(np.random.Philox(key=seed))
    # always all eight numbers, so that changing one share leaves the other draws as they are
    rotate, crop, elastic, angle, scale, x, y, power = random.random(8)
    matrix, nodes = np.eye(2, 3), None
    if rotate < settings.rotate:
        matrix = _rotation((2 * angle - 1) * math.radians(settings.rotation_degrees))
    elif crop < settings.crop:
        low, high = settings.crop_side
        share = low + (high - low) * scale
        matrix = _crop(share, (2 * x - 1) * (1 - share), (2 * y - 1) * (1 - share))
    elif elastic < settings.elastic:
        count = _node_count(settings.elastic_sigma)
        nodes = random.standard_normal((2, count, count), np.float32)
        nodes *= 2 * settings.elastic_shift  # a share of the side, which is 2 from -1 to 1
    noise = None
    if settings.noise > 0:
        noise = random.standard_normal((channels, side, side), np.float32)
        noise *= settings.noise * random.random(dtype=np.float32)
    # last of all, so that the other draws of a single channel stay as they are
    powers = [power, *random.random(channels - 1)]
    exponents = np.array([settings.gamma ** (2 * power - 1) for power in powers])
    return Draw(matrix, nodes, exponents, noise)


def _chunks(
    images: Sequence[Tensor], draws: Sequence[Draw], size: int
) -> Iterator[tuple[tuple[int, int] | None, list[int]]]:
    """Indices of samples to resample together, with the factors that `_oversampling` gives them."""
    groups: dict[tuple, list[int]] = {}
    for index, (image, one) in enumerate(zip(images, draws, strict=True)):
        factors = _oversampling(one, image.shape[-2:], size)
        groups.setdefault((factors, image.shape), []).append(index)
    for (factors, _), members in groups.items():
        length = CPU_CHUNK if images[0].device.type == "cpu" else len(members)
        for first in range(0, len(members), length):
            yield factors, members[first : first + length]


def _oversampling(one: Draw, shape: Sequence[int], size: int) -> tuple[int, int] | None:
    """How many points per output pixel to sample along y and x; None: there is no transform.

    The stretching by a deformation, a few per cent, is not counted.
    """
    if one.nodes is None and np.array_equal(one.matrix, np.eye(2, 3)):
        return None
    rows, columns = shape
    # columns: the step in the slice, in its pixels, for one output pixel along x, and along y
    steps = one.matrix[:, :2] * np.array([[columns], [rows]]) / size
    along_x, along_y = np.linalg.norm(steps, axis=0)
    return tuple(max(1, math.ceil(step / SPACING)) for step in (along_y, along_x))


def _resample(
    images: Tensor,
    labels: Tensor,
    draws: Sequence[Draw],
    sigma: float,
    size: int,
    factors: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) and labels (B, H, W) -> images (B, C, S, S) and labels (B, S, S)."""
    grid = _grid(draws, sigma, (size, size), images.device)
    nearest = F.grid_sample(labels[:, None].float(), grid, mode="nearest", align_corners=False)
    if factors != (1, 1):
        grid = _grid(draws, sigma, (size * factors[0], size * factors[1]), images.device)
    points = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    # the mean over an output pixel, weighted as for every slice that shrinks
    return resize_images(points, (size, size)), nearest[:, 0].to(labels.dtype)


def _rotation(angle: float) -> NDArray[np.float64]:
    """(2, 3) matrix of a rotation about the centre; radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0]])


def _crop(share: float, x: float, y: float) -> NDArray[np.float64]:
    """(2, 3) matrix that enlarges a crop: its side as a share of the whole, its centre (x, y)."""
    return np.array([[share, 0, x], [0, share, y]])


def _grid(
    draws: Sequence[Draw], sigma: float, shape: tuple[int, int], device: torch.device
) -> Tensor:
    """(B, *shape, 2): the place (x, y) in [-1, 1] of the slice that each output point samples."""
    matrix = _send([one.matrix for one in draws], device)
    lines = [(2 * torch.arange(side, device=device) + 1) / side - 1 for side in shape]  # centres
    # no matrix product, which TF32 or bfloat16 would round where they are allowed
    along_x = matrix[:, :, 0, None] * lines[1]  # B x 2 x columns
    along_y = matrix[:, :, 1, None] * lines[0] + matrix[:, :, 2, None]
    planes = along_x[:, :, None] + along_y[..., None]  # B x 2 x rows x columns
    deformed = {index: one.nodes for index, one in enumerate(draws) if one.nodes is not None}
    if deformed:
        for index, nodes in zip(deformed, _send([*deformed.values()], device), strict=True):
            planes[index] += _smooth(nodes, sigma, shape)
    return planes.movedim(1, -1)


def _send(arrays: Sequence[NDArray[np.floating]], device: torch.device) -> Tensor:
    """The arrays stacked as float32 on the device; pinned, so that a GPU copies without waiting."""
    stacked = torch.from_numpy(np.stack(arrays)).float()
    if device.type == "cuda":
        stacked = stacked.pin_memory()
    return stacked.to(device, non_blocking=True)


def _node_count(sigma: float) -> int:
    """M, the nodes along a side: one sigma apart, MARGIN of them outside of either border."""
    return math.ceil(1 / sigma) + 1 + 2 * MARGIN


def _smooth(nodes: Tensor, sigma: float, shape: tuple[int, int]) -> Tensor:
    """Noise at the nodes, (2, M, M) -> (2, *shape), smoothed by a Gaussian of width sigma.

    The usual filter smooths noise at every pixel. With noise at nodes one sigma apart the result
    has the same statistics within 1e-4 and takes two small matrix products. The standard deviation
    of the noise is kept.
    """
    node = torch.arange(nodes.shape[-1], device=nodes.device) - MARGIN
    rows, columns = (_weights(node, sigma, side) for side in shape)
    return rows @ nodes @ columns.T


def _weights(node: Tensor, sigma: float, side: int) -> Tensor:
    """(side, M): for each pixel of a line, Gaussian weights of the nodes, of unit norm."""
    place = (torch.arange(side, device=node.device) + 0.5) / side / sigma  # in sigmas
    # 0 from 6 sigmas on: further out float32 is denormal, which makes products ten times slower
    apart = (place[:, None] - node).abs()
    weights = torch.exp(-(apart**2) / 2) * (apart < 6)
    return weights / weights.norm(dim=1, keepdim=True)


def _intensities(images: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Gamma and noise on images (B, C, S, S) in [0, 1]."""
    if any((one.exponents != 1).any() for one in draws):
        exponents = [one.exponents[:, None, None] for one in draws]
        images = images ** _send(exponents, images.device)
    noise = [one.noise for one in draws if one.noise is not None]
    if noise:
        images = (images + _send(noise, images.device)).clamp(0, 1)
    return images

"""Random transforms of whole batches, on their device: image and label through one resampling.

The published recipe, in the order of its draws: a share of the slices is rotated; a share of the
others is cropped and enlarged; a share of the rest is deformed. All three only say where each pixel
comes from, so they end in one sampling grid, and each slice is interpolated once, from the pixels
that its shard holds to those of the model. Where the model's are coarser, an image's are means over
a finer grid.

Every sample has a seed of its own (`sample_seeds`). What it decides is drawn on the CPU, so a
sample's transform depends neither on its batch nor on the device or the number of workers.
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

# nodes of a deformation's noise beyond the border, in sigmas; a Gaussian is 0.01 there
MARGIN = 3
CPU_PIECE = 4  # samples
SPACING = 1.15  # pixels of a slice, at most, between two points where its image is read


@dataclass(frozen=True)
class Draw:
    """What one sample's seed decides.

    Attributes:
        matrix: (2, 3) from the output's (x, y, 1) to the input's (x, y), both in [-1, 1].
        nodes: (2, M, M) standard normal noise under a deformation; None: none.
        exponent: of the intensities.
        noise: (S, S) added to the intensities; None: none.
    """

    matrix: NDArray[np.float64]
    nodes: NDArray[np.float32] | None
    exponent: float
    noise: NDArray[np.float32] | None


def sample_seeds(seed: int, epoch: int, samples: Tensor) -> Tensor:
    """Seeds of an epoch's samples: raw numbers of Philox with the key (seed, epoch).

    Args:
        seed: `base.seed`.
        epoch: from 0.
        samples: (B,) integers from 0, such as dataset indices. Where an epoch may show a slice
            twice, places in the epoch's order, so that its transforms differ.

    Returns:
        (B,) int64 on the CPU, 0 or more: number s of the stream for sample s.
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
    """Transform every sample as its seed says, and bring it to the model's side.

    Args:
        images: B of (H, W) float32 in [0, 1], each of its own size, or (B, H, W); interpolated
            bilinearly, 0 outside.
        labels: B of (H, W) uint8; the nearest label to a pixel's centre, 0 outside, so no class
            is invented.
        settings: shares and ranges of the transforms.
        seeds: (B,) int64, from `sample_seeds`.
        size: S, the model's side.

    Returns:
        Images (B, 1, S, S) and labels (B, S, S) on the same device. A sample that the draw leaves
        alone is what `resize_images` and `resize_labels` give, to the last bit.
    """
    draws = [draw(settings, seed, size) for seed in seeds.tolist()]
    made: dict[int, tuple[Tensor, Tensor]] = {}
    for finer, piece in _pieces(images, draws, size):
        image = torch.stack([images[index] for index in piece])[:, None]
        label = torch.stack([labels[index] for index in piece])
        if finer is None:
            image, label = resize_images(image, (size, size)), resize_labels(label, (size, size))
        else:
            some = [draws[index] for index in piece]
            image, label = _sample(image, label, some, settings.elastic_sigma, size, finer)
        made.update(zip(piece, zip(image, label, strict=True), strict=True))
    image, label = (
        torch.stack([made[index][part] for index in range(len(draws))]) for part in (0, 1)
    )
    return _intensities(image, draws), label


def _pieces(
    images: Sequence[Tensor], draws: Sequence[Draw], size: int
) -> Iterator[tuple[tuple[int, int] | None, list[int]]]:
    """Samples that can be made together, and what `_finer` says of them."""
    alike: dict[tuple, list[int]] = {}
    for index, (image, one) in enumerate(zip(images, draws, strict=True)):
        alike.setdefault((_finer(one, image.shape, size), image.shape), []).append(index)
    for (finer, _), members in alike.items():
        # a CPU is faster on pieces whose grids stay in its cache
        length = CPU_PIECE if images[0].device.type == "cpu" else len(members)
        for first in range(0, len(members), length):
            yield finer, members[first : first + length]


def _finer(one: Draw, shape: Sequence[int], size: int) -> tuple[int, int] | None:
    """Points along a column and a row of an output pixel, for its mean; None: nothing moves.

    A deformation's own stretching is left out: it is a few per cent.
    """
    if one.nodes is None and np.array_equal(one.matrix, np.eye(2, 3)):
        return None
    rows, columns = shape
    # one column: the step of the source, in its pixels, for one of the output along x, then y
    steps = one.matrix[:, :2] * np.array([[columns], [rows]]) / size
    along_x, along_y = np.linalg.norm(steps, axis=0)
    return tuple(max(1, math.ceil(step / SPACING)) for step in (along_y, along_x))


def _sample(
    images: Tensor,
    labels: Tensor,
    draws: Sequence[Draw],
    sigma: float,
    size: int,
    finer: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Images (B, 1, S, S) and labels (B, S, S) from those of one size (H, W)."""
    grid = _grid(draws, sigma, (size, size), images.device)
    nearest = F.grid_sample(labels[:, None].float(), grid, mode="nearest", align_corners=False)
    if finer != (1, 1):
        grid = _grid(draws, sigma, (size * finer[0], size * finer[1]), images.device)
    points = F.grid_sample(images, grid, mode="bilinear", align_corners=False)
    # the mean has the weights of any slice that shrinks
    return resize_images(points, (size, size)), nearest[:, 0].to(labels.dtype)


def draw(settings: Augment, seed: int, side: int) -> Draw:
    """The transform of a sample of `side` x `side` pixels."""
    random = np.random.Generator(np.random.Philox(key=seed))
    # all are drawn, used or not, so that changing one share leaves the other draws alone
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
        nodes *= 2 * settings.elastic_shift  # the grid's side is 2
    noise = None
    if settings.noise > 0:
        noise = random.standard_normal((side, side), np.float32)
        noise *= settings.noise * random.random(dtype=np.float32)
    return Draw(matrix, nodes, settings.gamma ** (2 * power - 1), noise)


def _rotation(angle: float) -> NDArray[np.float64]:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0]])


def _crop(share: float, x: float, y: float) -> NDArray[np.float64]:
    return np.array([[share, 0, x], [0, share, y]])


def _grid(
    draws: Sequence[Draw], sigma: float, shape: tuple[int, int], device: torch.device
) -> Tensor:
    """(B, *shape, 2): where each point of a grid comes from, x before y, in [-1, 1]."""
    matrix = _send([one.matrix for one in draws], device)
    lines = [(2 * torch.arange(side, device=device) + 1) / side - 1 for side in shape]  # centres
    # written out: a matrix product would be rounded to TF32 or bfloat16 where those are allowed
    along_x = matrix[:, :, 0, None] * lines[1]  # B x 2 x columns
    along_y = matrix[:, :, 1, None] * lines[0] + matrix[:, :, 2, None]
    planes = along_x[:, :, None] + along_y[..., None]  # B x 2 x rows x columns
    deformed = {index: one.nodes for index, one in enumerate(draws) if one.nodes is not None}
    if deformed:
        for index, nodes in zip(deformed, _send([*deformed.values()], device), strict=True):
            planes[index] += _smooth(nodes, sigma, shape)
    return planes.movedim(1, -1)


def _send(arrays: Sequence[NDArray[np.floating]], device: torch.device) -> Tensor:
    """Stacked, float32, on the device, which a GPU does without waiting for its queue."""
    stacked = torch.from_numpy(np.stack(arrays)).float()
    if device.type == "cuda":
        stacked = stacked.pin_memory()
    return stacked.to(device, non_blocking=True)


def _node_count(sigma: float) -> int:
    """Nodes along a side, a sigma apart, MARGIN of them beyond either border."""
    return math.ceil(1 / sigma) + 1 + 2 * MARGIN


def _smooth(nodes: Tensor, sigma: float, shape: tuple[int, int]) -> Tensor:
    """(2, M, M) noise -> (2, *shape), smoothed by a Gaussian, its standard deviation kept.

    A Gaussian filter of white noise, with the noise on nodes a sigma apart in place of pixels:
    there a sum over the nodes differs from one over the pixels by 1e-4 of it, and the filter is
    two small products.
    """
    node = torch.arange(nodes.shape[-1], device=nodes.device) - MARGIN
    rows, columns = (_weights(node, sigma, side) for side in shape)
    return rows @ nodes @ columns.T


def _weights(node: Tensor, sigma: float, side: int) -> Tensor:
    """(side, M): Gaussian weights of the nodes at each pixel of a line, of unit norm."""
    place = (torch.arange(side, device=node.device) + 0.5) / side / sigma  # in sigmas
    # no further than 6 sigmas, where float32 is denormal and products take ten times as long
    apart = (place[:, None] - node).abs()
    weights = torch.exp(-(apart**2) / 2) * (apart < 6)
    return weights / weights.norm(dim=1, keepdim=True)


def _intensities(images: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Powers and noise on [0, 1]."""
    if any(one.exponent != 1 for one in draws):
        exponents = [np.full((1, 1, 1), one.exponent) for one in draws]
        images = images ** _send(exponents, images.device)
    noise = [one.noise for one in draws if one.noise is not None]
    if noise:
        images = (images + _send(noise, images.device)[:, None]).clamp(0, 1)
    return images

"""Slices as their shards store them, one after the other in a single tensor of bytes.

A cache or a batch is so shared between processes, or sent to a device, at once. Images stay what
they are stored as, 2 bytes a pixel where they are int16, until they are used.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.imaging.intensity import Edges

ALIGNED = 4  # bytes; every image starts at a multiple of this, as float32 needs

Shape = tuple[int, ...]  # (H, W), or (C, H, W) of several channels
Layout = tuple[Shape, torch.dtype, tuple[Edges, Edges]]  # of the image, its type, bounds


class StoredSlice(NamedTuple):
    """A slice in source units (CT: HU).

    Attributes:
        image: (H, W), or (C, H, W) of several channels, int16 or float32.
        label: (H, W) uint8, class indices.
        bounds: values of the image that become 0 and 1, tuples of them for several channels.
    """

    image: Tensor
    label: Tensor
    bounds: tuple[Edges, Edges]

    def unit(self) -> Tensor:
        """The image mapped to [0, 1], of its shape, float32, on its device.

        The same to the last bit as `pipeline.imaging.intensity.to_unit` on every device.
        """
        low, high = self.bounds
        if isinstance(low, tuple) or isinstance(high, tuple):
            ends = torch.tensor((low, high), dtype=torch.float64)[:, :, None, None]
            first, width = ends[0].float(), (ends[1] - ends[0]).float()
            scaled = torch.sub(self.image, first.to(self.image.device))
            return scaled.div_(width.to(scaled.device)).clamp_(0, 1)
        scaled = torch.sub(self.image, low)
        # by a tensor: a GPU multiplies by the inverse of a number, which rounds otherwise
        scaled /= torch.full((), high - low, dtype=torch.float32, device=scaled.device)
        return scaled.clamp_(0, 1)


@dataclass(frozen=True)
class Place:
    """Where a slice lies: its image from byte `start` on, then its label.

    Attributes:
        start: first byte of the image.
        shape: of the image.
        image_type: of the stored image.
        bounds: as in `StoredSlice`.
    """

    start: int
    shape: Shape
    image_type: torch.dtype
    bounds: tuple[Edges, Edges]

    @property
    def plane(self) -> Shape:
        """(H, W) of image and label."""
        return self.shape[-2:]

    @property
    def label_start(self) -> int:
        return self.start + math.prod(self.shape) * self.image_type.itemsize

    @property
    def end(self) -> int:
        end = self.label_start + math.prod(self.plane)
        return -(-end // ALIGNED) * ALIGNED


@dataclass(frozen=True, eq=False)
class PackedSlices:
    """Slices in one tensor.

    Attributes:
        data: (bytes,) uint8, on any device.
        places: where each slice lies in it.
    """

    data: Tensor
    places: Sequence[Place]

    @classmethod
    def of(
        cls, places: Sequence[Place], slices: Iterable[StoredSlice], pinned: bool = False
    ) -> "PackedSlices":
        """Copy slices to their places, in memory of this process.

        Args:
            places: as many as slices, or fewer.
            slices: the first ones are copied.
            pinned: into memory that a GPU copies without waiting.
        """
        size = places[-1].end if places else 0
        packed = cls(torch.empty(size, dtype=torch.uint8, pin_memory=pinned), places)
        for index, one in zip(range(len(places)), slices, strict=False):
            packed[index].image.copy_(one.image)
            packed[index].label.copy_(one.label)
        return packed

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> StoredSlice:
        """A slice as views of the data."""
        place = self.places[index]
        pixels = math.prod(place.plane)
        image = self.data[place.start : place.label_start].view(place.image_type)
        label = self.data[place.label_start : place.label_start + pixels]
        return StoredSlice(image.view(place.shape), label.view(place.plane), place.bounds)

    def all(self) -> list[StoredSlice]:
        """All slices, as views of the data."""
        return [self[index] for index in range(len(self))]

    def to(self, device: torch.device) -> "PackedSlices":
        """The slices on a device, sent as one tensor."""
        return PackedSlices(self.data.to(device, non_blocking=True), self.places)


def places_of(layouts: Iterable[Layout], limit: float = math.inf) -> list[Place]:
    """Places one after the other for the first slices, as many as end within `limit` bytes.

    Args:
        layouts: of each slice.
        limit: bytes.
    """
    places: list[Place] = []
    for layout in layouts:
        place = Place(places[-1].end if places else 0, *layout)
        if place.end > limit:
            break
        places.append(place)
    return places


def packed(slices: Sequence[StoredSlice], pinned: bool = False) -> PackedSlices:
    """All of these slices in one tensor; `pinned` as for `PackedSlices.of`."""
    layouts = ((tuple(one.image.shape), one.image.dtype, one.bounds) for one in slices)
    return PackedSlices.of(places_of(layouts), slices, pinned)

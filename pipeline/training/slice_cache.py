"""Decoded slices kept in memory, in the types that their shards have."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.imaging.intensity import to_unit
from pipeline.shards.case import ShardReader

ALIGNED = 4  # bytes; an image of float32 begins at a multiple of it


@dataclass(frozen=True)
class _Place:
    """Where a slice lies: its image from byte `start` on, then its label."""

    start: int
    shape: tuple[int, int]
    image_type: np.dtype
    bounds: tuple[float, float]

    @property
    def label_start(self) -> int:
        return self.start + self.shape[0] * self.shape[1] * self.image_type.itemsize

    @property
    def end(self) -> int:
        end = self.label_start + self.shape[0] * self.shape[1]
        return -(-end // ALIGNED) * ALIGNED


class SliceCache:
    """The first slices of a list that fit in a limit.

    They lie one after the other in one tensor, which other processes share as a whole.

    Args:
        names: case and slice index of each.
        open_shard: gives the shard of a case.
        limit: bytes; 2 or 4 a pixel for the image as stored, 1 for the label.

    Raises:
        UserError: a shard is missing or damaged.
    """

    def __init__(
        self,
        names: Sequence[tuple[str, int]],
        open_shard: Callable[[str], ShardReader],
        limit: float,
    ) -> None:
        self._places = _places(names, open_shard, limit)
        self._bytes = torch.empty(self._places[-1].end if self._places else 0, dtype=torch.uint8)
        held = self._bytes.numpy()
        for place, (case, index) in zip(self._places, names, strict=False):
            for start, array in zip(
                (place.start, place.label_start), open_shard(case).read_stored(index), strict=True
            ):
                held[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (H, W) float32 in [0, 1] and label (H, W) uint8; the label is the cache's own."""
        place = self._places[index]
        image = self._bytes[place.start : place.label_start].numpy().view(place.image_type)
        label = self._bytes[place.label_start : place.label_start + image.size]
        unit = to_unit(image.reshape(place.shape), *place.bounds)
        return torch.from_numpy(unit), label.view(place.shape)


def _places(
    names: Sequence[tuple[str, int]], open_shard: Callable[[str], ShardReader], limit: float
) -> list[_Place]:
    abouts: dict[str, tuple] = {}
    places: list[_Place] = []
    for case, _ in names:
        if case not in abouts:
            shard = open_shard(case)
            abouts[case] = (shard.shape[1:], shard.image_type, shard.bounds)
        place = _Place(places[-1].end if places else 0, *abouts[case])
        if place.end > limit:
            break
        places.append(place)
    return places

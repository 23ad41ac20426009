"""Training slices straight from the shards, the first of them kept decoded in a bounded cache.

Memory does not grow with the data set: a slice is decoded when it is asked for, at most READERS
shards are open in a process, and an open shard keeps its table of contents alone. The cache is
filled once, in the process that makes the loader, and only read afterwards: forked workers share
its pages, spawned ones get it as one shared tensor.

Slices keep the size of their shards, which may differ from case to case.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from pipeline.imaging.intensity import to_unit
from pipeline.shards.case import ShardReader

READERS = 16  # open shards a process
MIB = 2**20
ALIGNED = 4  # bytes; every image in the cache starts at a multiple of this, as float32 needs

Item = tuple[Tensor, Tensor, int]  # image, label, index


class SliceDataset(Dataset):
    """Named slices.

    Args:
        shards: folder of `<case>.parquet`.
        names: case and slice index of each; an item's place here is its index.
        cache_mib: memory for decoded slices, MiB, in every process that makes a loader; 0 keeps
            none.

    Raises, when a slice is read:
        UserError: its shard is missing or damaged.
    """

    def __init__(
        self, shards: Path, names: Sequence[tuple[str, int]], cache_mib: float = 0
    ) -> None:
        self.names = tuple(names)
        self.cache_mib = cache_mib
        self._readers = _Readers(Path(shards))
        self._cache: SliceCache | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Item:
        """Image (H, W) float32 in [0, 1], label (H, W) uint8 and the index itself."""
        if not 0 <= index < len(self):
            raise IndexError(f"slice {index} of {len(self)}")
        if self._cache is not None and index < self.cached:
            return *self._cache[index], index
        case, place = self.names[index]
        item = self._readers.open(case).read(place)
        return torch.from_numpy(item.image), torch.from_numpy(item.label), index

    @property
    def cached(self) -> int:
        """How many of the first slices are kept decoded."""
        return 0 if self._cache is None else len(self._cache)

    def fill_cache(self) -> None:
        """Decode the first slices, as many as fit; a second call does nothing."""
        if self._cache is None and self.cache_mib:
            self._cache = SliceCache(self.names, self._readers.open, self.cache_mib * MIB)

    def class_counts(self) -> NDArray[np.int64]:
        """(N, classes) pixels of each class in every slice as prepared, the background first.

        They are columns of the shards: no image is decoded.
        """
        counts: dict[str, NDArray[np.int64]] = {}
        for case in dict.fromkeys(case for case, _ in self.names):
            counts[case] = self._readers.open(case).counts
        return np.stack([counts[case][index] for case, index in self.names])


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


class _Readers:
    """The shards that were read last, open."""

    def __init__(self, shards: Path) -> None:
        self.shards = shards
        self._open: OrderedDict[str, ShardReader] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards, "_open": OrderedDict()}

    def open(self, case: str) -> ShardReader:
        reader = self._open.pop(case, None)
        if reader is None:
            reader = ShardReader(self.shards / f"{case}.parquet")
        self._open[case] = reader  # at the end: the one used last
        while len(self._open) > READERS:
            self._open.popitem(last=False)
        return reader


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

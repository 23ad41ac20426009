"""Training slices straight from the shards, the first of them kept decoded in a bounded cache.

Memory does not grow with the data set: a slice is decoded when it is asked for, at most READERS
shards are open in a process, and an open shard keeps its table of contents alone. The cache is
filled once, in the process that makes the loader, and only read afterwards: forked workers share
its pages, spawned ones get it as one shared tensor.

Slices keep the size of their shards, which may differ from case to case.
"""

import math
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
    """A list of slices, each read from its shard or from a cache of decoded slices.

    Args:
        shards: folder of `<case>.parquet`.
        names: case and slice index of each slice; its position here is its index in the dataset.
        cache_mib: memory for decoded slices, MiB, in every process that makes a loader; 0: none.

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
        """Image (H, W) float32 in [0, 1], label (H, W) uint8, and `index` itself."""
        if not 0 <= index < len(self):
            raise IndexError(f"slice {index} of {len(self)}")
        if self._cache is not None and index < self.cached:
            return *self._cache[index], index
        case, place = self.names[index]
        item = self._readers.open(case).read(place)
        return torch.from_numpy(item.image), torch.from_numpy(item.label), index

    @property
    def cached(self) -> int:
        """Number of slices in the cache: the first ones of the dataset."""
        return 0 if self._cache is None else len(self._cache)

    def fill_cache(self) -> None:
        """Decode the first slices, as many as fit into the cache; does nothing the second time."""
        if self._cache is None and self.cache_mib:
            self._cache = SliceCache(self.names, self._readers.open, self.cache_mib * MIB)

    def largest(self) -> tuple[int, int]:
        """(H, W) of the slice with the most pixels."""
        cases = dict.fromkeys(case for case, _ in self.names)
        return max((self._readers.open(case).shape[1:] for case in cases), key=math.prod)

    def largest_bytes(self) -> int:
        """Bytes of the largest slice, as an item of this dataset."""
        return 5 * math.prod(self.largest())  # float32 and uint8

    def class_counts(self) -> NDArray[np.int64]:
        """(N, classes): pixels of each class in each slice, the background first.

        They are a column of the shards, so no image is decoded.
        """
        counts: dict[str, NDArray[np.int64]] = {}
        for case in dict.fromkeys(case for case, _ in self.names):
            counts[case] = self._readers.open(case).counts
        return np.stack([counts[case][index] for case, index in self.names])


class SliceCache:
    """Decoded slices in memory: as many of the first ones as fit.

    They lie one after the other in a single uint8 tensor, which processes can share. Images keep
    the type of their shards and are mapped to [0, 1] when they are read.

    Args:
        names: case and slice index of each slice.
        open_shard: case id to its reader.
        limit: bytes for all slices; a pixel takes 2 or 4 for the image and 1 for the label.

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
        buffer = self._bytes.numpy()
        for place, (case, index) in zip(self._places, names, strict=False):
            for start, array in zip(
                (place.start, place.label_start), open_shard(case).read_stored(index), strict=True
            ):
                buffer[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (H, W) float32 in [0, 1] and label (H, W) uint8, a view of the cache."""
        place = self._places[index]
        image = self._bytes[place.start : place.label_start].numpy().view(place.image_type)
        label = self._bytes[place.label_start : place.label_start + image.size]
        unit = to_unit(image.reshape(place.shape), *place.bounds)
        return torch.from_numpy(unit), label.view(place.shape)


class _Readers:
    """The shards that were read last, kept open: at most READERS of them."""

    def __init__(self, shards: Path) -> None:
        self.shards = shards
        self._open: OrderedDict[str, ShardReader] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"shards": self.shards, "_open": OrderedDict()}

    def open(self, case: str) -> ShardReader:
        """The reader of a case; closes the one that was not used for the longest time."""
        reader = self._open.pop(case, None)
        if reader is None:
            reader = ShardReader(self.shards / f"{case}.parquet")
        self._open[case] = reader  # the last one in the order is the one used last
        while len(self._open) > READERS:
            self._open.popitem(last=False)
        return reader


@dataclass(frozen=True)
class _Place:
    """Where a slice lies in the cache: its image from byte `start` on, then its label.

    Attributes:
        start: first byte of the image.
        shape: (H, W).
        image_type: of the stored image.
        bounds: values of the stored image that become 0 and 1.
    """

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
    """Places for the first slices, as many as end within `limit` bytes."""
    layouts: dict[str, tuple] = {}  # case to shape, type and bounds of its slices
    places: list[_Place] = []
    for case, _ in names:
        if case not in layouts:
            shard = open_shard(case)
            layouts[case] = (shard.shape[1:], shard.image_type, shard.bounds)
        place = _Place(places[-1].end if places else 0, *layouts[case])
        if place.end > limit:
            break
        places.append(place)
    return places

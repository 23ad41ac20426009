"""Training slices straight from the shards, the first of them kept decoded in a bounded cache.

Memory does not grow with the data set: a slice is decoded when it is asked for, at most READERS
shards are open in a process, and an open shard keeps its table of contents alone. The cache is
filled once, in the process that makes the loader, and only read afterwards: forked workers share
its pages, spawned ones get it as one shared tensor.

Slices keep the size and type of their shards, which may differ from case to case.
"""

import itertools
import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from pipeline.shards.case import ShardReader
from pipeline.training.packed import Layout, PackedSlices, StoredSlice, places_of

READERS = 16  # open shards a process
MIB = 2**20
TYPES = {np.dtype("<i2"): torch.int16, np.dtype("<f4"): torch.float32}  # of stored images


class SliceDataset(Dataset):
    """A list of slices, each read from its shard or from a cache of decoded slices.

    Args:
        shards: folder of `<case>.parquet`.
        names: case and slice index of each slice; its position here is its index in the dataset.
        cache_mib: memory for decoded slices, MiB, in every process that makes a loader; 0: none.

    Attributes:
        cache: the first slices, decoded; None before `fill_cache`, or where there is none.

    Raises, when a slice is read:
        UserError: its shard is missing or damaged.
    """

    def __init__(
        self, shards: Path, names: Sequence[tuple[str, int]], cache_mib: float = 0
    ) -> None:
        self.names = tuple(names)
        self.cache_mib = cache_mib
        self._readers = _Readers(Path(shards))
        self._known: dict[str, Layout] = {}
        self.cache: PackedSlices | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> StoredSlice:
        """A slice as its shard stores it; one of the cache as views of it."""
        if not 0 <= index < len(self):
            raise IndexError(f"slice {index} of {len(self)}")
        if self.cache is not None and index < self.cached:
            return self.cache[index]
        return self._read(*self.names[index])

    @property
    def cached(self) -> int:
        """Number of slices in the cache: the first ones of the dataset."""
        return 0 if self.cache is None else len(self.cache)

    def fill_cache(self) -> None:
        """Decode the first slices, as many as fit into the cache; does nothing the second time."""
        if self.cache is None and self.cache_mib:
            layouts = (self._layout(case) for case, _ in self.names)
            places = places_of(layouts, self.cache_mib * MIB)
            self.cache = PackedSlices.of(places, itertools.starmap(self._read, self.names))

    def largest(self) -> tuple[int, int]:
        """(H, W) of the slice with the most pixels."""
        rows, columns = max((shape[-2:] for shape, *_ in self._layouts()), key=math.prod)
        return rows, columns

    def largest_bytes(self) -> int:
        """Bytes of the largest slice, image and label."""
        return max(places_of([layout])[0].end for layout in self._layouts())

    def class_counts(self) -> NDArray[np.int64]:
        """(N, classes): pixels of each class in each slice, the background first.

        They are a column of the shards, so no image is decoded.
        """
        counts: dict[str, NDArray[np.int64]] = {}
        for case in dict.fromkeys(case for case, _ in self.names):
            counts[case] = self._readers.open(case).counts
        return np.stack([counts[case][index] for case, index in self.names])

    def _layouts(self) -> Iterator[Layout]:
        """The layout of the slices of each case."""
        return (self._layout(case) for case in dict.fromkeys(case for case, _ in self.names))

    def _layout(self, case: str) -> Layout:
        """Shape and type of the images of a case, and their bounds."""
        if case not in self._known:
            shard = self._readers.open(case)
            axis = (shard.channels,) if shard.channels > 1 else ()
            shape = (*axis, *shard.shape[1:])
            self._known[case] = (shape, TYPES[shard.image_type], shard.bounds)
        return self._known[case]

    def _read(self, case: str, place: int) -> StoredSlice:
        image, label = self._readers.open(case).read_stored(place)
        # a copy, since what Arrow gives is read-only
        return StoredSlice(
            torch.from_numpy(image.copy()), torch.from_numpy(label), self._layout(case)[2]
        )


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

"""Training slices straight from the shards, and the batches that a training loop takes.

Memory doesn't follow the size of the data set: a slice is decoded when it is asked for, a process
keeps at most READERS shards open, and of those it keeps the table of contents alone. The first
slices of the set are kept decoded as long as they fit in a stated limit. They are decoded once, in
the process that makes the loader, and only read from then on: forked workers share the pages, and
spawned ones the memory that PyTorch moves tensors to, so no process writes what another reads.

Slices keep the side that they have in the shards, which differs between cases of some data sets.
"""

import signal
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.core.errors import UserError
from pipeline.core.signals import follow_parent
from pipeline.imaging.intensity import to_unit
from pipeline.shards.case import ShardReader

READERS = 16  # open shards a process
MIB = 2**20
Item = tuple[Tensor, Tensor, int]
Batch = tuple[list[Tensor], list[Tensor], Tensor]


ALIGNED = 4  # bytes; an image of float32 begins at a multiple of it


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
        if index < self.cached:
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


class SliceLoader:
    """Batches of a dataset that the caller chooses.

    The batches are the same for any number of workers. Worker processes live as long as the
    loader; a set that is cached whole is read in this process, where that is faster.

    Args:
        dataset: its cache is filled here.
        batch_size: slices a batch of `epoch`; the last one may hold fewer.
        workers: processes that read ahead; 0 reads in this one.
        pin_memory: put batches where a GPU can fetch them without waiting.
        start_method: "fork", "spawn" or None for the platform's own.
    """

    def __init__(
        self,
        dataset: SliceDataset,
        batch_size: int,
        workers: int = 0,
        pin_memory: bool = False,
        start_method: str | None = None,
    ) -> None:
        self.dataset = dataset
        dataset.fill_cache()
        if dataset.cached == len(dataset):
            workers = 0
        self.batch_size = batch_size
        self._chosen = _Chosen()
        self._loader = DataLoader(
            _Guarded(dataset),
            batch_sampler=self._chosen,
            collate_fn=_joined if workers or pin_memory else _listed,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            multiprocessing_context=start_method if workers else None,
            worker_init_fn=follow_parent,
            generator=torch.Generator(),  # else it takes a number from the model's
        )

    def epoch(self, order: Sequence[int] | Tensor) -> Iterator[Batch]:
        """`batches` of `batch_size` slices each, in the given order."""
        step = self.batch_size
        return self.batches(order[first : first + step] for first in range(0, len(order), step))

    def batches(self, chosen: Iterable[Sequence[int] | Tensor]) -> Iterator[Batch]:
        """B images (H, W), B labels (H, W) and indices (B,) int64 of each batch in turn.

        Args:
            chosen: dataset indices of each batch; workers take them some batches ahead.

        Raises:
            UserError: a shard is missing or damaged.
        """
        self._chosen.batches = chosen
        for batch in self._loader:
            if isinstance(batch, UserError):
                raise batch
            images, labels, indices, sizes = batch
            if sizes is not None:
                images, labels = _cut(images, sizes), _cut(labels, sizes)
            yield images, labels, indices


@contextmanager
def explaining_killed_workers() -> Iterator[None]:
    """A UserError where a worker was killed from outside.

    PyTorch raises for it at once, wherever the main thread is, and not with a type of its own; or
    the pipe from that worker breaks first. To be used in the main thread.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        # PyTorch's handler would raise again for each of the others that ends
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise UserError(
            "a process that reads slices was killed, most likely for want of memory (shared "
            "memory included); lower train.workers or train.batch_size."
        ) from None


class _Chosen:
    """A batch sampler over batches that the caller sets; it stays in this process."""

    batches: Iterable[Sequence[int] | Tensor] = ()

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            yield [int(index) for index in batch]


@dataclass(frozen=True)
class _Guarded(Dataset):
    """Hands a UserError on as a value: raised in a worker, it would arrive with a traceback."""

    dataset: SliceDataset

    def __getitems__(self, indices: list[int]) -> list[Item] | UserError:
        try:
            return [self.dataset[index] for index in indices]
        except UserError as error:
            return error


def _listed(
    items: list[Item] | UserError,
) -> tuple[list[Tensor], list[Tensor], Tensor, None] | UserError:
    """Images, labels and indices."""
    if isinstance(items, UserError):
        return items
    images, labels, indices = (list(each) for each in zip(*items, strict=True))
    return images, labels, torch.tensor(indices), None


def _joined(items: list[Item] | UserError) -> tuple[Tensor, Tensor, Tensor, list] | UserError:
    """Pixels of all images in one tensor, those of the labels in another; indices; H and W each.

    Two tensors of a batch go from process to process, or to a GPU, at the price of two.
    """
    if isinstance(items, UserError):
        return items
    images, labels, indices, _ = _listed(items)
    pixels = (torch.cat([each.reshape(-1) for each in kind]) for kind in (images, labels))
    return *pixels, indices, [tuple(image.shape) for image in images]


def _cut(pixels: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
    """Views (H, W) of pixels that lie one after the other."""
    parts = pixels.split([rows * columns for rows, columns in sizes])
    return [part.view(*size) for part, size in zip(parts, sizes, strict=True)]


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

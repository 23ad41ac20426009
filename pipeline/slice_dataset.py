"""Training slices straight from the shards, and the batches that a training loop takes.

Memory doesn't follow the size of the data set: a slice is decoded when it is asked for, a process
keeps at most READERS shards open, and of those it keeps the table of contents alone. The first
slices of the set are kept decoded as long as they fit in a stated limit. They are decoded once, in
the process that makes the loader, and only read from then on: forked workers share the pages, and
spawned ones the memory that PyTorch moves tensors to, so no process writes what another reads.
"""

import signal
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from pipeline.errors import UserError
from pipeline.shards import ShardReader
from pipeline.slices import resize_images, resize_labels

READERS = 16  # open shards a process
MIB = 2**20
Item = tuple[Tensor, Tensor, int]


class SliceDataset(Dataset):
    """Named slices, resized to S x S.

    Args:
        shards: folder of `<case>.parquet`.
        names: case and slice index of each; an item's place here is its index.
        image_size: S.
        cache_mib: memory for decoded slices, MiB (5 S² bytes each), in every process that makes
            a loader; 0 keeps none.

    Raises, when a slice is read:
        UserError: its shard is missing or damaged.
    """

    def __init__(
        self,
        shards: Path,
        names: Sequence[tuple[str, int]],
        image_size: int,
        cache_mib: float = 0,
    ) -> None:
        self.names = tuple(names)
        self.image_size = image_size
        self.cached = min(len(self.names), int(cache_mib * MIB / (5 * image_size**2)))
        self._readers = _Readers(Path(shards))
        self._cache: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Item:
        """Image (1, S, S) float32 in [0, 1], label (S, S) uint8 and the index itself."""
        if not 0 <= index < len(self):
            raise IndexError(f"slice {index} of {len(self)}")
        if self._cache is not None and index < self.cached:
            images, labels = self._cache
            return images[index], labels[index], index
        return *self._decode(index), index

    def fill_cache(self) -> None:
        """Decode the first `cached` slices; a second call does nothing."""
        if self._cache is None and self.cached:
            side = self.image_size
            images = torch.empty(self.cached, 1, side, side)
            labels = torch.empty(self.cached, side, side, dtype=torch.uint8)
            for index in range(self.cached):
                images[index], labels[index] = self._decode(index)
            self._cache = images, labels

    def class_counts(self) -> NDArray[np.int64]:
        """(N, classes) pixels of each class in every slice as prepared, the background first.

        They are columns of the shards: no image is decoded.
        """
        counts: dict[str, NDArray[np.int64]] = {}
        for case in dict.fromkeys(case for case, _ in self.names):
            counts[case] = self._readers.open(case).counts
        return np.stack([counts[case][index] for case, index in self.names])

    def _decode(self, index: int) -> tuple[Tensor, Tensor]:
        case, place = self.names[index]
        item = self._readers.open(case).read(place)
        size = (self.image_size, self.image_size)
        image = torch.from_numpy(item.image)[None, None]  # 1 x 1 x H x W
        label = torch.from_numpy(item.label)[None]  # 1 x H x W
        return resize_images(image, size)[0], resize_labels(label, size)[0]


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
            collate_fn=_collate,
            num_workers=workers,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            multiprocessing_context=start_method if workers else None,
            generator=torch.Generator(),  # else it takes a number from the model's
        )

    def epoch(self, order: Sequence[int] | Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """`batches` of `batch_size` slices each, in the given order."""
        step = self.batch_size
        return self.batches(order[first : first + step] for first in range(0, len(order), step))

    def batches(
        self, chosen: Iterable[Sequence[int] | Tensor]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images (B, 1, S, S), labels (B, S, S) and indices (B,) int64 of each batch in turn.

        Args:
            chosen: dataset indices of each batch; workers take them some batches ahead.

        Raises:
            UserError: a shard is missing or damaged.
        """
        self._chosen.batches = chosen
        for batch in self._loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch


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


def _collate(items: list[Item] | UserError) -> tuple[Tensor, Tensor, Tensor] | UserError:
    return items if isinstance(items, UserError) else tuple(default_collate(items))


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

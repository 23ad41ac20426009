"""Batches of training slices, read in this process or ahead of time by worker processes."""

import math
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.core.children import start_worker
from pipeline.core.console import say
from pipeline.core.devices import SHARED_MEMORY, free_shared_memory
from pipeline.core.errors import UserError
from pipeline.core.signals import Stop
from pipeline.training.packed import PackedSlices, StoredSlice, packed
from pipeline.training.slices import SliceDataset

Batch = tuple[list[Tensor], list[Tensor], Tensor]  # images, labels, indices
Read = tuple[list[StoredSlice], list[int]]  # slices and their indices

AHEAD = 2  # batches that each worker reads ahead
WAIT_SECONDS = 600  # longest time for a batch from workers
MIB = 2**20


class SliceLoader:
    """Reads batches whose indices the caller gives, and sends them to the training's device.

    The batches are the same for any number of workers, any cache and any place of it. Workers live
    as long as the loader. A dataset that is cached as a whole is read in this process, which is
    faster; it lies on the device, where it fits there, and no slice is sent again.

    Args:
        dataset: the slices; their cache is filled here.
        batch_size: slices per batch of `epoch`; the last batch may hold fewer.
        workers: processes that read ahead; 0: this process reads.
        device: of the training.
        start_method: of the workers, "fork" or "spawn"; None: the platform's default.
        devices: training processes of this machine, which share its memory.
        room: bytes of the device that a whole cached dataset may take.
    """

    def __init__(
        self,
        dataset: SliceDataset,
        batch_size: int,
        workers: int = 0,
        device: str | torch.device = "cpu",
        start_method: str | None = None,
        devices: int = 1,
        room: float = math.inf,
    ) -> None:
        self.dataset = dataset
        dataset.fill_cache()
        self.device = torch.device(device)
        self._whole: PackedSlices | None = None
        if dataset.cache is not None and dataset.cached == len(dataset):
            workers = 0
            if self.device.type == "cpu" or dataset.cache.data.nbytes <= room:
                self._whole = dataset.cache.to(self.device)
        if workers and not _fits_shared_memory(dataset, batch_size, workers, devices):
            workers = 0
        self.workers = workers
        self.batch_size = batch_size
        self._indices = _GivenBatches()
        self._loader: DataLoader | None = None
        if workers:
            self._loader = DataLoader(
                _ErrorsAsItems(dataset),
                batch_sampler=self._indices,
                collate_fn=_shared,
                num_workers=workers,
                prefetch_factor=AHEAD,
                timeout=WAIT_SECONDS,
                pin_memory=self.device.type == "cuda",
                persistent_workers=True,
                multiprocessing_context=start_method,
                worker_init_fn=start_worker,
                generator=torch.Generator(),  # else a number of the model's one is drawn
            )

    def epoch(self, order: Sequence[int] | Tensor) -> Iterator[Batch]:
        """Batches of `batch_size` slices; `order` gives the dataset indices one after the other."""
        step = self.batch_size
        return self.batches(order[first : first + step] for first in range(0, len(order), step))

    def batches(
        self, chosen: Iterable[Sequence[int] | Tensor], stop: Stop | None = None
    ) -> Iterator[Batch]:
        """Read the given batches.

        Args:
            chosen: dataset indices of each batch; workers take them a few batches ahead.
            stop: ends the waiting for a slice.

        Yields:
            B images (H, W) or (C, H, W) float32 in [0, 1] and B labels (H, W) uint8, both on the
            device, and their indices (B,) int64 on the CPU.

        Raises:
            UserError: a shard is missing or damaged, or workers give nothing for WAIT_SECONDS.
            WaitEnded: a signal came while this waited.
        """
        self._indices.batches = chosen
        loader = self._loader
        stream = self._read_here(chosen) if loader is None else self._from_workers(loader)
        while True:
            with nullcontext() if stop is None else stop.waiting():
                batch = next(stream, None)
            if batch is None:
                return
            slices, indices = batch
            yield (
                [one.unit() for one in slices],
                [one.label for one in slices],
                torch.tensor(indices),
            )

    def _read_here(self, chosen: Iterable[Sequence[int] | Tensor]) -> Iterator[Read]:
        """Batches of this process, on the device."""
        whole: PackedSlices | SliceDataset = self.dataset if self._whole is None else self._whole
        for wanted in chosen:
            indices = _integers(wanted)
            slices = [whole[index] for index in indices]
            if self._whole is None and self.device.type != "cpu":
                batch = packed(slices, pinned=self.device.type == "cuda")
                slices = batch.to(self.device).all()
            yield slices, indices

    def _from_workers(self, loader: DataLoader) -> Iterator[Read]:
        """Batches of the workers, on the device."""
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            data, places, indices = batch
            slices = PackedSlices(torch.as_tensor(data), places)
            yield slices.to(self.device).all(), indices


@contextmanager
def explaining_killed_workers() -> Iterator[None]:
    """Inside the block, a worker that is killed from outside is a UserError.

    PyTorch raises a RuntimeError for it from a signal handler, wherever the main thread is, unless
    the pipe from the worker breaks first. For the main thread only.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        if isinstance(error, RuntimeError) and str(error).startswith("DataLoader timed out"):
            raise UserError(
                f"no slices came for {WAIT_SECONDS} seconds from the processes that read them; "
                "look at the disk of the shards, or set train.workers to 0 to read without them."
            ) from None
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        # else PyTorch's handler would raise again for every other worker that ends
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise UserError(
            "a process that reads slices was killed, most likely for want of memory (shared "
            "memory included); lower train.workers or train.batch_size."
        ) from None


def _fits_shared_memory(dataset: SliceDataset, batch_size: int, workers: int, devices: int) -> bool:
    """Whether the batches that workers read ahead fit; says so where they don't."""
    free = free_shared_memory()
    if free is None:
        return True
    batches = AHEAD * workers + 2  # those read ahead, and those on their way and in use
    needed = devices * (batches * batch_size * dataset.largest_bytes() + MIB)  # and semaphores
    if needed <= free:
        return True
    say(
        f"{SHARED_MEMORY} has {free / MIB:.0f} MiB free, {workers} processes that read slices need "
        f"{needed / MIB:.0f} MiB: slices are read without them; make it larger (docker run "
        "--shm-size 8g) or lower train.workers."
    )
    return False


class _GivenBatches:
    """A batch sampler over batches that the caller sets; it is not copied to the workers."""

    batches: Iterable[Sequence[int] | Tensor] = ()

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            yield _integers(batch)


def _integers(indices: Sequence[int] | Tensor) -> list[int]:
    return [int(index) for index in indices]


@dataclass(frozen=True)
class _ErrorsAsItems(Dataset):
    """Returns a UserError instead of raising it: from a worker it would come with a traceback."""

    dataset: SliceDataset

    def __getitems__(self, indices: list[int]) -> list[tuple[StoredSlice, int]] | UserError:
        try:
            return [(self.dataset[index], index) for index in indices]
        except UserError as error:
            return error


def _shared(items: list[tuple[StoredSlice, int]] | UserError) -> tuple | UserError:
    """A batch of a worker: its slices in one tensor of shared memory, their places, and indices."""
    if isinstance(items, UserError):
        return items
    slices, indices = (list(each) for each in zip(*items, strict=True))
    batch = packed(slices)
    try:
        return batch.data.share_memory_(), batch.places, indices
    except RuntimeError:
        # shared memory is full: an array goes through a pipe, slower
        return batch.data.numpy(), batch.places, indices

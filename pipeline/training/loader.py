"""Batches of training slices, read in this process or ahead of time by worker processes."""

import shutil
import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from pipeline.core.children import start_worker
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.core.signals import Stop
from pipeline.training.slices import Item, SliceDataset

Batch = tuple[list[Tensor], list[Tensor], Tensor]  # images, labels, indices

AHEAD = 2  # batches that each worker reads ahead
SHARED_MEMORY = Path("/dev/shm")  # where batches of workers lie, on Linux
WAIT_SECONDS = 600  # longest time for a batch from workers
MIB = 2**20


class SliceLoader:
    """Reads batches whose indices the caller gives.

    The batches are the same for any number of workers. Workers live as long as the loader; a
    dataset that is cached as a whole is read in this process, which is faster.

    Args:
        dataset: the slices; their cache is filled here.
        batch_size: slices per batch of `epoch`; the last batch may hold fewer.
        workers: processes that read ahead; 0: this process reads.
        pin_memory: put batches into pinned memory, which a GPU copies without waiting.
        start_method: of the workers, "fork" or "spawn"; None: the platform's default.
        devices: training processes of this machine, which share its memory.
    """

    def __init__(
        self,
        dataset: SliceDataset,
        batch_size: int,
        workers: int = 0,
        pin_memory: bool = False,
        start_method: str | None = None,
        devices: int = 1,
    ) -> None:
        self.dataset = dataset
        dataset.fill_cache()
        if dataset.cached == len(dataset):
            workers = 0
        if workers and not _fits_shared_memory(dataset, batch_size, workers, devices):
            workers = 0
        self.workers = workers
        self.batch_size = batch_size
        self._indices = _GivenBatches()
        self._loader = DataLoader(
            _ErrorsAsItems(dataset),
            batch_sampler=self._indices,
            collate_fn=_joined if workers or pin_memory else _listed,
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            timeout=WAIT_SECONDS if workers else 0,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            multiprocessing_context=start_method if workers else None,
            worker_init_fn=start_worker,
            generator=torch.Generator(),  # else a number is drawn from the one that the model uses
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
            stop: ends the waiting for a worker.

        Yields:
            B images (H, W) float32 in [0, 1], B labels (H, W) uint8, and their indices (B,) int64.

        Raises:
            UserError: a shard is missing or damaged, or workers give nothing for WAIT_SECONDS.
            WaitEnded: a signal came while this waited.
        """
        self._indices.batches = chosen
        stream = iter(self._loader)
        while True:
            with nullcontext() if stop is None else stop.waiting():
                batch = next(stream, None)
            if batch is None:
                return
            if isinstance(batch, UserError):
                raise batch
            images, labels, indices, sizes = batch
            if sizes is not None:
                images, labels, indices = map(torch.as_tensor, (images, labels, indices))
                images, labels = _split(images, sizes), _split(labels, sizes)
            yield images, labels, indices


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


def free_shared_memory() -> int | None:
    """Free bytes for batches of workers; None where the system sets no bound of its own."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return None


class _GivenBatches:
    """A batch sampler over batches that the caller sets; it is not copied to the workers."""

    batches: Iterable[Sequence[int] | Tensor] = ()

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.batches:
            yield [int(index) for index in batch]


@dataclass(frozen=True)
class _ErrorsAsItems(Dataset):
    """Returns a UserError instead of raising it: from a worker it would come with a traceback."""

    dataset: SliceDataset

    def __getitems__(self, indices: list[int]) -> list[Item] | UserError:
        try:
            return [self.dataset[index] for index in indices]
        except UserError as error:
            return error


def _listed(
    items: list[Item] | UserError,
) -> tuple[list[Tensor], list[Tensor], Tensor, None] | UserError:
    """A batch for this process: lists of images and labels, indices, and None for the sizes."""
    if isinstance(items, UserError):
        return items
    images, labels, indices = (list(each) for each in zip(*items, strict=True))
    return images, labels, torch.tensor(indices), None


def _joined(items: list[Item] | UserError) -> tuple[Any, Any, Any, list] | UserError:
    """A batch for another process or a GPU: pixels of all images in one tensor, of all labels in
    another, indices, and the sizes (H, W).

    Sending two tensors is faster than sending two for each slice.
    """
    listed = _listed(items)
    if isinstance(listed, UserError):
        return listed
    images, labels, indices, _ = listed
    values, classes = (torch.cat([each.reshape(-1) for each in kind]) for kind in (images, labels))
    sizes = [tuple(image.shape) for image in images]
    if get_worker_info() is not None:
        try:
            values, classes = values.share_memory_(), classes.share_memory_()
        except RuntimeError:
            # shared memory is full: arrays go through a pipe, slower
            return values.numpy(), classes.numpy(), indices.tolist(), sizes
    return values, classes, indices, sizes


def _split(pixels: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
    """The slices (H, W) of each size in a tensor of all their pixels, as views."""
    parts = pixels.split([rows * columns for rows, columns in sizes])
    return [part.view(*size) for part, size in zip(parts, sizes, strict=True)]

"""Batches of training slices, read in this process or ahead of time by worker processes."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.core.children import start_worker
from pipeline.core.errors import UserError
from pipeline.training.slices import Item, SliceDataset

Batch = tuple[list[Tensor], list[Tensor], Tensor]  # images, labels, indices


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
        self._indices = _GivenBatches()
        self._loader = DataLoader(
            _ErrorsAsItems(dataset),
            batch_sampler=self._indices,
            collate_fn=_joined if workers or pin_memory else _listed,
            num_workers=workers,
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

    def batches(self, chosen: Iterable[Sequence[int] | Tensor]) -> Iterator[Batch]:
        """Read the given batches.

        Args:
            chosen: dataset indices of each batch; workers take them a few batches ahead.

        Yields:
            B images (H, W) float32 in [0, 1], B labels (H, W) uint8, and their indices (B,) int64.

        Raises:
            UserError: a shard is missing or damaged.
        """
        self._indices.batches = chosen
        for batch in self._loader:
            if isinstance(batch, UserError):
                raise batch
            images, labels, indices, sizes = batch
            if sizes is not None:
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
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        # else PyTorch's handler would raise again for every other worker that ends
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise UserError(
            "a process that reads slices was killed, most likely for want of memory (shared "
            "memory included); lower train.workers or train.batch_size."
        ) from None


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


def _joined(items: list[Item] | UserError) -> tuple[Tensor, Tensor, Tensor, list] | UserError:
    """A batch for another process or a GPU: pixels of all images in one tensor, of all labels in
    another, indices, and the sizes (H, W).

    Sending two tensors is faster than sending two for each slice.
    """
    listed = _listed(items)
    if isinstance(listed, UserError):
        return listed
    images, labels, indices, _ = listed
    values, classes = (torch.cat([each.reshape(-1) for each in kind]) for kind in (images, labels))
    return values, classes, indices, [tuple(image.shape) for image in images]


def _split(pixels: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
    """The slices (H, W) of each size in a tensor of all their pixels, as views."""
    parts = pixels.split([rows * columns for rows, columns in sizes])
    return [part.view(*size) for part, size in zip(parts, sizes, strict=True)]

"""Batches of training slices, read in this process or ahead of time by workers."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.core.errors import UserError
from pipeline.core.signals import follow_parent
from pipeline.training.slices import Item, SliceDataset

Batch = tuple[list[Tensor], list[Tensor], Tensor]  # images, labels, indices


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
    listed = _listed(items)
    if isinstance(listed, UserError):
        return listed
    images, labels, indices, _ = listed
    values, classes = (torch.cat([each.reshape(-1) for each in kind]) for kind in (images, labels))
    return values, classes, indices, [tuple(image.shape) for image in images]


def _cut(pixels: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
    """Views (H, W) of pixels that lie one after the other."""
    parts = pixels.split([rows * columns for rows, columns in sizes])
    return [part.view(*size) for part, size in zip(parts, sizes, strict=True)]

"""Embeddings of augmented training slices, computed once for an encoder that isn't trained.

An epoch of a training then costs the decoders alone. Each slice has `train.cache_embeddings` views,
each with an augmentation of its own; epoch e of a training takes view e modulo their number.

They lie in a run folder of their own, `runs/<data set>-embeddings-<hash>/`, which every training
and search with the same slices, encoder and augmentation shares, whichever model's decoders it
trains; an interrupted one goes on.
"""

import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hsam.inference import for_inference
from hsam.model import EncodedModel
from pipeline.core import files, run_folder, sources, weight_files
from pipeline.core.console import LINE_SECONDS, steps
from pipeline.core.errors import Stopped, UserError
from pipeline.core.params.blocks import Train
from pipeline.core.run_folder import RunFolder
from pipeline.core.signals import listening
from pipeline.inference.precision import set_tf32
from pipeline.training.augment import augment, sample_seeds
from pipeline.training.batches import Step
from pipeline.training.build import build_model
from pipeline.training.prepared import TrainingData
from pipeline.training.slices import SliceDataset

PROGRESS, EMBEDDINGS, LABELS = "progress.json", "embeddings.f16", "labels.u8"
CHUNK = 8  # slices embedded together
MEASURED = 64  # rows whose range is told
SAVED_EVERY = 8  # chunks between two notes of how far it is
# what they depend on of the block `train`
DEPENDS = {
    "cache_embeddings",
    "backbone",
    "encoder_size",
    "normalise",
    "image_size",
    "augment",
    "tf32",
}
GIB = 2**30


@dataclass(frozen=True)
class Embeddings:
    """Embeddings and labels on disk, a row a view and slice: row view * slices + index.

    Attributes:
        folder: where they lie.
        slices: number of training slices N.
        views: views of each, K.
        embedding: (D, G, G) of one, stored in float16.
        side: side S of the labels, stored as uint8.
    """

    folder: Path
    slices: int
    views: int
    embedding: tuple[int, int, int]
    side: int

    @property
    def row_bytes(self) -> dict[str, int]:
        """Name of each file to the bytes of a row in it."""
        return {EMBEDDINGS: 2 * math.prod(self.embedding), LABELS: self.side**2}

    @property
    def bytes(self) -> int:
        """Size of the whole on disk."""
        return self.slices * self.views * sum(self.row_bytes.values())

    def size_of(self, name: str) -> int:
        """Bytes of a file so far."""
        path = self.folder / name
        return path.stat().st_size if path.exists() else 0

    @property
    def size(self) -> str:
        """Number and size, for people."""
        return f"{self.views} x {self.slices:,} slices, {self.bytes / GIB:.2f} GiB"

    def batches(
        self, chosen: Iterable[Step], device: torch.device
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each pass of the steps: embeddings (b, D, G, G) and labels (b, S, S) on the device,
        and indices.
        """
        embeddings, labels = self.arrays()
        for step in chosen:
            for part in step.passes:
                rows = (step.epoch % self.views) * self.slices + part.indices.numpy()
                yield (
                    torch.from_numpy(embeddings[rows]).to(device),
                    torch.from_numpy(labels[rows]).to(device),
                    part.indices,
                )

    def range_in_std(self) -> float:
        """Range of the first rows over their standard deviation."""
        rows = np.asarray(self.arrays()[0][:MEASURED], np.float32)
        return float(np.ptp(rows) / rows.std())

    def arrays(self) -> tuple[NDArray[np.float16], NDArray[np.uint8]]:
        """The files as arrays (rows, D, G, G) and (rows, S, S), read as they are used."""
        rows = self.slices * self.views
        return (
            np.memmap(self.folder / EMBEDDINGS, np.float16, "r", shape=(rows, *self.embedding)),
            np.memmap(self.folder / LABELS, np.uint8, "r", shape=(rows, self.side, self.side)),
        )


def embedded(
    run: RunFolder, settings: Train, data: TrainingData, seed: int, device: str
) -> Embeddings | None:
    """The embeddings that a training asks for, computed where they aren't there yet.

    Args:
        run: of the training or search; the embeddings lie beside it.
        settings: the `train` block.
        data: prepared data and their split.
        seed: of the training, `Params.seed_of("train")`.
        device: "cpu" or "cuda".

    Returns:
        None where `train.cache_embeddings` is 0.

    Raises:
        UserError: no room on the disk, or a missing or damaged shard.
        Stopped: a signal asked for it; the same call goes on from there.
    """
    if not settings.cache_embeddings:
        return None
    values = settings.model_dump(mode="json", include=DEPENDS)
    mine = run.key["inputs"].items()
    inputs = {name: value for name, value in mine if name not in ("search", "start")}
    if weight_files.chosen(settings) is None:  # each model draws random weights in its own order
        values["model"] = settings.model
        code = sources.model(settings.model, settings.backbone)
    else:
        code = sources.encoder(settings.backbone)
    with run_folder.open_run(
        run.path.parent,
        data.name,
        "embeddings",
        {"train": values | {"seed": seed}},
        inputs,
        code,
        module=__name__,
        wait=True,
    ) as beside:
        model = build_model(settings, len(data.class_names), seed)
        assert isinstance(model, EncodedModel), "the parameters were checked"
        found = Embeddings(
            beside.path,
            len(data.names("train")),
            settings.cache_embeddings,
            model.embedding_shape,
            settings.image_size,
        )
        set_tf32(settings.tf32)
        _fill(found, for_inference(model, device), data.slices("train"), settings, seed)
    return found


@torch.inference_mode()
def _fill(
    found: Embeddings, model: EncodedModel, slices: SliceDataset, settings: Train, seed: int
) -> None:
    """Append the rows that aren't there yet, a chunk of slices of one view at a time."""
    chunks = [
        (view, torch.arange(first, min(first + CHUNK, found.slices)))
        for view in range(found.views)
        for first in range(0, found.slices, CHUNK)
    ]
    done = _done(found, [len(indices) for _, indices in chunks])
    if done == len(chunks):
        return
    rows = sum(len(indices) for _, indices in chunks[:done])
    _check_room(found, rows)
    shown = steps("embed slices", len(chunks), done, LINE_SECONDS)
    device = next(model.parameters()).device
    with listening() as stop, shown as bar, _appending(found, rows) as (embeddings, labels):
        for number, (view, indices) in enumerate(chunks[done:], done + 1):
            items = [slices[index] for index in indices.tolist()]
            images, truth = augment(
                [item.unit().to(device) for item in items],
                [item.label.to(device) for item in items],
                settings.augment,
                sample_seeds(seed, view, indices),
                settings.image_size,
            )
            embeddings.write(model.embed(images).half().cpu().numpy().tobytes())
            labels.write(truth.cpu().numpy().tobytes())
            bar.advance()
            if number == len(chunks) or number % SAVED_EVERY == 0 or stop.signal is not None:
                for file in (embeddings, labels):
                    file.flush()
                    os.fsync(file.fileno())
                files.write_json(found.folder / PROGRESS, {"chunks": number})
            if stop.signal is not None:
                raise Stopped(f"embed slices: stopped after {number} of {len(chunks)}", stop.signal)


@contextmanager
def _appending(found: Embeddings, rows: int) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The files of embeddings and labels, cut after so many rows."""
    with ExitStack() as stack:
        opened = []
        for name, size in found.row_bytes.items():
            path = found.folder / name
            path.touch()
            file = stack.enter_context(open(path, "r+b"))
            file.truncate(rows * size)
            file.seek(0, os.SEEK_END)
            opened.append(file)
        yield opened[0], opened[1]


def _done(found: Embeddings, sizes: Sequence[int]) -> int:
    """Chunks, of so many rows each, that an earlier start has written; 0 where a file is short."""
    try:
        chunks = int(files.read_json(found.folder / PROGRESS)["chunks"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0
    rows = sum(sizes[:chunks])
    whole = all(found.size_of(name) >= rows * size for name, size in found.row_bytes.items())
    return chunks if whole else 0


def _check_room(found: Embeddings, rows: int) -> None:
    """UserError where the disk has no room for what follows so many rows."""
    row = sum(found.row_bytes.values())
    behind = sum(map(found.size_of, found.row_bytes)) - rows * row  # is cut off
    free = shutil.disk_usage(found.folder).free + behind
    if found.bytes - rows * row > free:
        raise UserError(
            f"train.cache_embeddings: {found.size} don't fit on the disk of {found.folder}, which "
            f"has {free / GIB:.2f} GiB free; lower it, set it to 0, or work elsewhere (--runs)."
        )

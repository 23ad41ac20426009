"""Slices a second into training: from shards, and in the form the field uses today.

    python benchmarks/slices.py [--slices 48] [--rounds 5] [--threads 1] [--json slices.json]

Both give batches of augmented slices at the model's side, 512 or 224 pixels, from slices of
512 x 512, with the same transforms: a share of 0.45 rotated, 0.75 of the others cropped and
enlarged, 0.85 of the rest deformed, from the same seeds.

- shards: `SliceLoader` over parquet shards, then `augment` on whole batches; decoded anew for every
  epoch, or kept decoded.
- npz: one uncompressed .npz a slice (float32 image, float32 label), read with `np.load` and
  transformed on its own with SciPy, in the published code's orders of interpolation: `rotate` to
  the nearest pixel, `zoom` with cubic splines for the image and to the nearest pixel for the
  label, `map_coordinates` bilinearly for both; a deformation is white noise under a Gaussian
  filter. Then `zoom` brings it to the model's side.
  Low-resolution copies of the label and colour channels, which some codes make here, are left out.

With more than one thread both read in that many worker processes. The process and its workers are
bound to as many cores as threads. They take turns, and the fastest round of each is kept. With a
GPU, `augment` runs on it as well, in rows of its own.
"""

import itertools
import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import alone, fastest, machine, options, report
from numpy.typing import NDArray
from scipy import ndimage
from torch.utils.data import DataLoader, Dataset

from pipeline.core.params.blocks import Augment, Params
from pipeline.core.params.load import load, validate
from pipeline.shards.case import ShardReader
from pipeline.stages import phantom, prepare
from pipeline.training.augment import Draw, augment, draw, sample_seeds
from pipeline.training.loader import SliceLoader
from pipeline.training.slices import SliceDataset

ROOT = Path(__file__).resolve().parent.parent
SIDE, BATCH, SEED = 512, 16, 0
MODEL_SIDES = (512, 224)
Array = NDArray[np.float32]
Pair = tuple[Array, Array]


class NpzDataset(Dataset):
    """Augmented slices from one .npz each.

    Args:
        files: of arrays image (512, 512) in [0, 1] and label (512, 512), both float32.
        draws: the transform of each.
        settings: ranges of the transforms.
        size: the model's side, pixels.
    """

    def __init__(self, files: list[Path], draws: list[Draw], settings: Augment, size: int) -> None:
        self.files, self.draws, self.settings, self.size = files, draws, settings, size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        with np.load(self.files[index]) as data:
            pair = data["image"], data["label"]
        image, label = npz_resize(npz_augment(pair, self.draws[index], self.settings), self.size)
        return torch.from_numpy(image)[None], torch.from_numpy(label.astype(np.uint8))


def npz_augment(pair: Pair, one: Draw, settings: Augment) -> Pair:
    """A slice and its label, transformed with SciPy."""
    if one.nodes is not None:
        return deformed(pair, settings)
    if one.matrix[1, 0]:
        angle = math.degrees(math.asin(one.matrix[1, 0]))
        return tuple(ndimage.rotate(each, angle, reshape=False, order=0) for each in pair)
    if one.matrix[0, 0] < 1:
        return cropped(pair, one)
    return pair


def npz_resize(pair: Pair, size: int) -> Pair:
    """A slice and its label at the model's side, with SciPy."""
    if size == SIDE:
        return pair
    image, label = pair
    return ndimage.zoom(image, size / SIDE, order=3), ndimage.zoom(label, size / SIDE, order=0)


def cropped(pair: Pair, one: Draw) -> Pair:
    side = round(SIDE * one.matrix[0, 0])
    left, top = ((one.matrix[:, 2] + 1) * SIDE / 2 - side / 2).round().astype(int).clip(0)
    window = (slice(top, top + side), slice(left, left + side))
    return tuple(
        ndimage.zoom(each[window], SIDE / side, order=order)
        for each, order in zip(pair, (3, 0), strict=True)
    )


def deformed(pair: Pair, settings: Augment) -> Pair:
    random = np.random.default_rng(SEED)
    sigma = settings.elastic_sigma * SIDE
    strength = settings.elastic_shift * SIDE * 2 * math.sqrt(math.pi) * sigma
    shifts = [
        strength * ndimage.gaussian_filter(random.standard_normal((SIDE, SIDE)), sigma)
        for _ in range(2)
    ]
    rows, columns = np.mgrid[:SIDE, :SIDE]
    places = (rows + shifts[0], columns + shifts[1])
    return tuple(ndimage.map_coordinates(each, places, order=1) for each in pair)


def parameters(folder: Path, cases: int) -> Params:
    """For phantoms of SIDE x SIDE pixels."""
    about = {"cases": cases, "seed": 1, "size": SIDE}
    changes = {"dataset": {"root": str(folder / "raw"), "phantom": about}}
    return validate(changes, "benchmark")


def recipe() -> Augment:
    """The published recipe."""
    return load([ROOT / "workflow" / "presets" / "paper.yaml"]).train.augment


def make_data(folder: Path, slices: int) -> tuple[list[tuple[str, int]], list[Path]]:
    """Phantoms of 512 x 512 pixels as shards and as .npz files; names and files of the slices."""
    cases = max(3, math.ceil(slices / 18))  # a phantom has 18 slices or more
    phantom.run(folder / "raw", cases=cases, seed=1, size=SIDE)
    prepare.run(parameters(folder, cases), folder / "prepare", folder / "runs")
    names, files = [], []
    for path in sorted((folder / "prepare" / "shards").glob("*.parquet")):
        reader = ShardReader(path)
        for index in range(len(reader)):
            item = reader.read(index)
            files.append(folder / f"{path.stem}-{index}.npz")
            names.append((path.stem, index))
            np.savez(files[-1], image=item.image, label=item.label.astype(np.float32))
    return names[:slices], files[:slices]


def forms(
    folder: Path,
    names: list[tuple[str, int]],
    files: list[Path],
    size: int,
    workers: int,
    device: str,
) -> dict[str, Callable[[], None]]:
    """An epoch of each form at a model's side."""
    settings = recipe()
    seeds = sample_seeds(SEED, 0, torch.arange(len(names)))
    draws = [draw(settings, seed, SIDE) for seed in seeds.tolist()]
    npz = DataLoader(
        NpzDataset(files, draws, settings, size),
        BATCH,
        num_workers=workers,
        persistent_workers=workers > 0,
    )

    def shards(cache_mib: float) -> Callable[[], None]:
        dataset = SliceDataset(folder / "prepare" / "shards", names, cache_mib)
        loader = SliceLoader(dataset, BATCH, workers, device)

        def run() -> None:
            for images, labels, indices in loader.epoch(range(len(names))):
                augment(images, labels, settings, seeds[indices], size)

        return run

    def read_npz() -> None:
        for images, labels in npz:
            images.to(device), labels.to(device)

    return {"npz": read_npz, "shards": shards(0), "shards, kept decoded": shards(2**14)}


def _settle(threads: int) -> None:
    """Bind this process to so many cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def epochs(
    folder: Path, names: list, files: list[Path], rounds: int, threads: int, device: str
) -> list[dict]:
    """Slices a second of each form at each of the model's sides."""
    _settle(threads)
    workers = threads if threads > 1 else 0
    work = {
        (size, form): run
        for size in MODEL_SIDES
        for form, run in forms(folder, names, files, size, workers, device).items()
    }
    times = fastest(work, rounds)
    return [
        {
            "model's side": size,
            "form": form,
            "augmented on": "cpu" if form == "npz" else device,
            "slices/s": len(names) / taken,
            "ms a slice": 1000 * taken / len(names),
            "times npz": times[size, "npz"] / taken,
        }
        for (size, form), taken in times.items()
    ]


def transforms(file: Path, rounds: int, threads: int) -> list[dict]:
    """Milliseconds a slice of each transform at each side, without reading; ours in batches."""
    _settle(threads)
    settings = recipe()
    with np.load(file) as data:
        pair = data["image"], data["label"]
    images = torch.from_numpy(pair[0]).expand(BATCH, SIDE, SIDE).contiguous()
    labels = torch.from_numpy(pair[1]).to(torch.uint8).expand(BATCH, SIDE, SIDE).contiguous()
    seeds = sample_seeds(SEED, 0, torch.arange(BATCH))
    rows = []
    for size, name in itertools.product(MODEL_SIDES, ("rotate", "crop", "elastic")):
        shares = {"rotate": 0.0, "crop": 0.0, "elastic": 0.0, name: 1.0}
        alone_settings = settings.model_copy(update=shares)
        draws = [draw(alone_settings, seed, SIDE) for seed in seeds.tolist()]
        times = fastest(
            {
                "npz": lambda d=draws, s=alone_settings, size=size: [
                    npz_resize(npz_augment(pair, one, s), size) for one in d
                ],
                "ours": lambda s=alone_settings, size=size: augment(images, labels, s, seeds, size),
            },
            rounds,
        )
        ours, theirs = 1000 * times["ours"] / BATCH, 1000 * times["npz"] / BATCH
        rows.append(
            {
                "model's side": size,
                "transform": name,
                "npz, ms": theirs,
                "ours, ms": ours,
                "ratio": theirs / ours,
            }
        )
    return rows


def main() -> None:
    arguments = options(__doc__, rounds=5, threads=1, slices=(48, "slices an epoch"))
    rounds, threads = arguments.rounds, arguments.threads
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names, files = make_data(folder, arguments.slices)
        rows = []
        for device in devices:
            rows += alone(epochs, threads, folder, names, files, rounds, threads, device)
        result = {
            "machine": machine(threads, "numpy", "scipy", "pyarrow"),
            "Augmented slices of 512 x 512 into training": rows,
            "Transforms alone, on the CPU": alone(
                transforms, threads, files[len(files) // 2], rounds, threads
            ),
        }
    report(result, arguments.json)


if __name__ == "__main__":
    main()

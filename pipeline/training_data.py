"""The prepared data under a split: what training and search read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hsam
from pipeline import files, metrics
from pipeline.predict import predict_volume
from pipeline.shards import ShardReader, read_manifest
from pipeline.slice_dataset import SliceDataset
from pipeline.split_file import read_split

Volume = tuple[NDArray[np.float32], NDArray[np.uint8]]


@dataclass(frozen=True)
class TrainingData:
    """Prepared slices with their roles.

    Attributes:
        name: the data set's name.
        class_names: organs, in the order of the labels 1, 2, ...
        intensity: rule that brought the images to [0, 1].
        preparation: axes and in-plane spacing of the prepared slices.
        shards: folder of the shards.
        roles: role to (case, slice index) pairs.
        hashes: what identifies the data: of the manifest and of the split.
    """

    name: str
    class_names: list[str]
    intensity: dict[str, Any]
    preparation: dict[str, Any]
    shards: Path
    roles: dict[str, tuple[tuple[str, int], ...]]
    hashes: dict[str, str]

    @classmethod
    def open(cls, prepared: Path, split: Path) -> "TrainingData":
        """Read manifest and split; UserError when one is missing or they don't fit together."""
        manifest = read_manifest(prepared / "manifest.parquet")
        roles = read_split(split / "split.parquet")
        return cls(
            manifest.name,
            manifest.class_names,
            manifest.intensity,
            manifest.preparation,
            prepared / "shards",
            roles.slices,
            {
                "manifest": files.sha256(prepared / "manifest.parquet"),
                "split": roles.hash,
            },
        )

    def names(self, role: str) -> tuple[tuple[str, int], ...]:
        """Case and slice index of every slice with the role."""
        return self.roles.get(role, ())

    def slices(self, role: str, image_size: int, cache_mib: float = 0) -> SliceDataset:
        """The slices of a role, resized to `image_size`; read when they are asked for."""
        return SliceDataset(self.shards, self.names(role), image_size, cache_mib)

    def volumes(self, role: str) -> "Volumes":
        """The volumes of a role's cases."""
        return Volumes(self.shards, tuple(sorted({case for case, _ in self.names(role)})))


@dataclass(frozen=True)
class Volumes:
    """Volumes that are read one at a time, anew in every iteration.

    Each is images (Z, H, W) float32 in [0, 1] and labels (Z, H, W) uint8.
    """

    shards: Path
    cases: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Volume]:
        for case in self.cases:
            yield ShardReader(self.shards / f"{case}.parquet").read_volume()


def validation_dice(
    model: hsam.SegmentationModel, volumes: Iterable[Volume], *, batch_size: int, device: str
) -> float:
    """Mean Dice over organs and cases, in [0, 1]; an organ absent from truth is left out."""
    scores = []
    for images, labels in volumes:
        predicted = predict_volume(model, images, batch_size=batch_size, device=device)
        present = (organ for organ in range(1, model.classes) if (labels == organ).any())
        scores += [metrics.dice(labels == organ, predicted == organ) for organ in present]
    return float(np.mean(scores)) if scores else 0.0

"""Prepared data and their split, as training and search read them."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.shards.case import ShardReader
from pipeline.shards.manifest import read_manifest
from pipeline.shards.roles import check_slices, read_split

if TYPE_CHECKING:
    from pipeline.training.slices import SliceDataset

Volume = tuple[NDArray[np.float32], NDArray[np.uint8]]  # images and labels


@dataclass(frozen=True)
class TrainingData:
    """A prepared data set with the roles of its slices.

    Attributes:
        name: name of the data set.
        title: what people call it.
        class_names: organs; `class_names[k - 1]` is class k.
        intensity: the rule that maps images to [0, 1], or the list of each channel's.
        preparation: axes and in-plane spacing of the prepared slices, and their channels.
        shards: folder of the shards.
        shard_hashes: case to the SHA-256 of its shard.
        roles: role to (case, slice index) pairs.
        hashes: SHA-256 of the manifest and of the split, which identify the data.
        voxels: case to its voxels of each class, the background first.
    """

    name: str
    title: str
    class_names: list[str]
    intensity: dict[str, Any] | list[dict[str, Any]]
    preparation: dict[str, Any]
    shards: Path
    shard_hashes: dict[str, str]
    roles: dict[str, tuple[tuple[str, int], ...]]
    hashes: dict[str, str]
    voxels: dict[str, tuple[int, ...]]

    @classmethod
    def open(cls, prepared: Path, split: Path, title: str | None = None) -> "TrainingData":
        """Read manifest and split.

        Args:
            prepared, split: published folders of these stages.
            title: what people call the data set; None: its name.

        Raises:
            UserError: one is missing or damaged, or they don't belong together.
        """
        manifest = read_manifest(prepared / "manifest.parquet")
        roles = read_split(split / "split.parquet")
        check_slices(roles, manifest.name, {row.case: row.slices for row in manifest}, split)
        return cls(
            manifest.name,
            title or manifest.name,
            manifest.class_names,
            manifest.intensity,
            manifest.preparation,
            prepared / "shards",
            {row.case: row.shard_sha256 for row in manifest},
            roles.slices,
            {
                "manifest": files.sha256(prepared / "manifest.parquet"),
                "split": roles.hash,
            },
            {row.case: row.counts for row in manifest},
        )

    def names(self, role: str) -> tuple[tuple[str, int], ...]:
        """Case and slice index of every slice with the role."""
        return self.roles.get(role, ())

    def check_training(self, split: Path) -> None:
        """UserError where the split that was read from `split` has nothing to train on."""
        if not self.names("train"):
            raise UserError(
                f"{split}: the split has no training slices; raise split.subjects or "
                "split.slices, or name some in split.list."
            )

    def check_validation(self, split: Path, key: str, why: str, instead: str) -> None:
        """Refuse a split with nothing to validate on.

        Args:
            split: folder that the split was read from.
            key, why: the parameter that asks for validation slices, and what they are for.
            instead: its value that needs none.

        Raises:
            UserError: no slice has the role validation, or their cases show no organ.
        """
        cases = sorted({case for case, _ in self.names("validation")})
        if any(any(self.voxels[case][1:]) for case in cases):
            return
        found = f"{', '.join(cases)}, which show none" if cases else "no validation slices"
        raise UserError(
            f"{split}: {key}: {why} on validation cases that show an organ, the split has {found}; "
            f"raise split.validation, name others in split.list, or set {key} to {instead}."
        )

    def unseen_organs(self) -> list[str]:
        """Organs that no training slice shows, so that a model can't learn them."""
        pixels = self.slices("train").class_counts().sum(axis=0)
        return [name for name, seen in zip(self.class_names, pixels[1:], strict=True) if not seen]

    def usual(self) -> dict[str, Any]:
        """What the training slices look like, as `inference.usual.ranges` gives it.

        Raises:
            UserError: a shard is missing or damaged.
        """
        # imports SciPy, which finding that all is done doesn't need
        from pipeline.inference.usual import Tally, ranges

        places: dict[str, list[int]] = {}
        for case, index in self.names("train"):
            places.setdefault(case, []).append(index)
        cases = []
        for case, indices in places.items():
            reader = ShardReader(self.shards / f"{case}.parquet")
            tally = Tally(len(self.class_names), reader.read(indices[0]).spacing_mm)
            for index in indices:
                one = reader.read(index)
                tally.add(one.image, one.label, index)
            cases.append((tally, len(reader)))
        return ranges(self.class_names, cases)

    def check_shards(self, *roles: str) -> None:
        """Compare the shards of all cases with these roles with the hashes in the manifest.

        Raises:
            UserError: a shard is missing or has another hash; lists all of them.
        """
        cases = sorted({case for role in roles for case, _ in self.names(role)})
        paths = {case: self.shards / f"{case}.parquet" for case in cases}
        problems = [
            f"{path}: this isn't the shard that the manifest names; run the prepare stage again."
            for case, path in paths.items()
            if not path.is_file() or files.sha256(path) != self.shard_hashes[case]
        ]
        if problems:
            raise UserError(problems)

    def slices(self, role: str, cache_mib: float = 0) -> "SliceDataset":
        """The slices of a role; `cache_mib` as for `SliceDataset`."""
        # PyTorch is imported when there is work: what is done says so at once
        from pipeline.training.slices import SliceDataset

        return SliceDataset(self.shards, self.names(role), cache_mib)

    def volumes(self, role: str) -> "Volumes":
        """The volumes of the cases that have slices with the role."""
        return Volumes(self.shards, tuple(sorted({case for case, _ in self.names(role)})))


@dataclass(frozen=True)
class Volumes:
    """Volumes that are read from their shards one at a time and not kept.

    Attributes:
        shards: folder of the shards.
        cases: ids of the cases.
    """

    shards: Path
    cases: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.cases)

    def read(self, case: str) -> Volume:
        """Images (Z, H, W) or (Z, C, H, W) float32 in [0, 1] and labels (Z, H, W) uint8."""
        return ShardReader(self.shards / f"{case}.parquet").read_volume()

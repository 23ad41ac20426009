"""The manifest of a prepared data set: one parquet file, a row a case."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.files import atomic_path
from pipeline.imaging.geometry import Geometry
from pipeline.shards.parquet import open_file, reading, with_metadata

_MANIFEST_FIELDS = pa.schema(
    [
        pa.field("case", pa.string(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),
        pa.field("shard_sha256", pa.string(), nullable=False),
        pa.field("image_sha256", pa.string(), nullable=False),
        pa.field("label_sha256", pa.string(), nullable=False),
        pa.field("shape", pa.list_(pa.int32(), 3), nullable=False),
        pa.field("spacing_mm", pa.list_(pa.float64(), 3), nullable=False),
        pa.field("source_shape", pa.list_(pa.int32(), 3), nullable=False),
        pa.field("source_affine", pa.list_(pa.float64(), 16), nullable=False),
        pa.field("orientation", pa.string(), nullable=False),
        pa.field("low", pa.float64(), nullable=False),
        pa.field("high", pa.float64(), nullable=False),
        pa.field("slices", pa.int32(), nullable=False),
        pa.field("counts", pa.list_(pa.int64()), nullable=False),
        pa.field("role", pa.string()),
    ]
)


@dataclass(frozen=True)
class ManifestRow:
    """One case of a data set.

    Attributes:
        case: the id.
        shard: file name of its shard.
        shard_sha256, image_sha256, label_sha256: of the shard and the raw files.
        shape: (slices, rows, columns) as prepared.
        spacing_mm: voxel sides along slice, row, column as prepared.
        source_shape: voxels along x, y, z of the raw volume.
        source_affine: voxel to RAS+ mm, 4 x 4, row after row.
        orientation: of the raw volume, such as "LAS".
        low, high: source units that became 0 and 1.
        slices: number of slices.
        counts: voxels of each class, the background first.
        role: part of the literature's split, None where it names none.
    """

    case: str
    shard: str
    shard_sha256: str
    image_sha256: str
    label_sha256: str
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    source_shape: tuple[int, int, int]
    source_affine: tuple[float, ...]
    orientation: str
    low: float
    high: float
    slices: int
    counts: tuple[int, ...]
    role: Literal["train", "test"] | None

    @property
    def geometry(self) -> Geometry:
        """The raw volume's grid, to which predictions go back (`geometry.restore_labels`)."""
        return Geometry(self.source_shape, np.reshape(self.source_affine, (4, 4)))


@dataclass(frozen=True)
class Manifest:
    """A prepared data set.

    Attributes:
        name: the data set's.
        class_names: organs; `class_names[k - 1]` is class k.
        intensity: the rule that brought the images to [0, 1]: kind, low, high.
        preparation: axes of the slices ("SPL") and spacing_mm that they were resampled to, or None.
        rows: the cases, sorted by id.
    """

    name: str
    class_names: list[str]
    intensity: dict[str, Any]
    preparation: dict[str, Any]
    rows: tuple[ManifestRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ManifestRow]:
        return iter(self.rows)

    def case(self, case: str) -> ManifestRow:
        """The row of one case; KeyError when there is none."""
        for row in self.rows:
            if row.case == case:
                return row
        raise KeyError(case)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest atomically; the same data set gives the same bytes."""
    about = {
        "kind": "manifest",
        "name": manifest.name,
        "class_names": list(manifest.class_names),
        "intensity": dict(manifest.intensity),
        "preparation": dict(manifest.preparation),
    }
    schema = with_metadata(_MANIFEST_FIELDS, about)
    table = pa.Table.from_pylist([asdict(row) for row in manifest.rows], schema)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_manifest(path: Path) -> Manifest:
    """The prepared data set's cases.

    Raises:
        UserError: missing, damaged, or written by another version.
    """
    file, about = open_file(Path(path), "manifest", _MANIFEST_FIELDS)
    with reading(path):
        rows = [
            ManifestRow(**{key: _tuple(value) for key, value in row.items()})
            for row in file.read().to_pylist()
        ]
        return Manifest(
            about["name"],
            about["class_names"],
            about["intensity"],
            about["preparation"],
            tuple(rows),
        )


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value

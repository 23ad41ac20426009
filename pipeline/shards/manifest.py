"""The manifest of a prepared data set: one parquet file with a row for each case."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.files import atomic_path
from pipeline.imaging.geometry import Geometry, recorded_preparation
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
        case: id of the case.
        shard: file name of its shard.
        shard_sha256, image_sha256, label_sha256: SHA-256 of the shard and of the raw files.
        shape: (slices, rows, columns) of the shard.
        spacing_mm: voxel sides of the shard along slice, row and column.
        source_shape: voxels along x, y, z of the raw volume.
        source_affine: voxel index to RAS+ mm, the 16 numbers of a 4 x 4 matrix row by row.
        orientation: of the raw volume's axes, such as "LAS".
        low, high: source units that became 0 and 1; of several channels those of the first.
        slices: number of slices in the shard.
        counts: voxels of each class in the shard, the background first.
        role: part of the split used in the literature, None where that names none.
        warnings: what the raw files leave open or may be a mistake, one sentence each.
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
    warnings: tuple[str, ...] = ()

    @property
    def geometry(self) -> Geometry:
        """Grid of the raw volume, to which `geometry.restore_labels` brings predictions back."""
        return Geometry(self.source_shape, np.reshape(self.source_affine, (4, 4)))


@dataclass(frozen=True)
class Manifest:
    """A prepared data set.

    Attributes:
        name: name of the data set.
        class_names: organs; `class_names[k - 1]` is class k.
        intensity: the rule that maps images to [0, 1]: kind, low, high; a list of one for each
            channel, where there are several.
        preparation: `axes` of the slices, such as "SPL", and `spacing_mm` in plane; None: as
            acquired; where the data set has several channels, `channels`: name and number there.
        rows: the cases, sorted by id.
    """

    name: str
    class_names: list[str]
    intensity: dict[str, Any] | list[dict[str, Any]]
    preparation: dict[str, Any]
    rows: tuple[ManifestRow, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[ManifestRow]:
        return iter(self.rows)

    @property
    def axes(self) -> str:
        """Directions in which slices, rows and columns of the shards grow."""
        axes: str = recorded_preparation(self.preparation)["axes"]
        return axes

    def case(self, case: str) -> ManifestRow:
        """The row of one case; KeyError when there is none."""
        for row in self.rows:
            if row.case == case:
                return row
        raise KeyError(case)


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write a manifest atomically; the same data set gives the same bytes."""
    metadata = {
        "kind": "manifest",
        "name": manifest.name,
        "class_names": list(manifest.class_names),
        "intensity": manifest.intensity,
        "preparation": dict(manifest.preparation),
        "warnings": {row.case: list(row.warnings) for row in manifest if row.warnings},
    }
    schema = with_metadata(_MANIFEST_FIELDS, metadata)
    table = pa.Table.from_pylist([asdict(row) for row in manifest.rows], schema)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        UserError: missing, damaged, or of another version.
    """
    file, metadata = open_file(Path(path), "manifest", _MANIFEST_FIELDS)
    with reading(path):
        warnings = metadata.get("warnings", {})
        rows = [
            ManifestRow(
                **{key: _tuple(value) for key, value in row.items()},
                warnings=tuple(warnings.get(row["case"], ())),
            )
            for row in file.read().to_pylist()
        ]
        return Manifest(
            metadata["name"],
            metadata["class_names"],
            metadata["intensity"],
            metadata["preparation"],
            tuple(rows),
        )


def _tuple(value: Any) -> Any:
    """Lists, as parquet gives them, become tuples, as the rows hold them."""
    return tuple(value) if isinstance(value, list) else value

"""One prepared case as a parquet file, its shard: images, labels and where they come from.

A shard has one row per slice and one slice per row group, so that a slice is read without the
others. Images keep the source's units (CT: HU), clipped to [low, high]; the reader maps them to
[0, 1]. Axes are (slice, row, column) as in `pipeline.imaging.geometry`; a slice of several channels
is (C, row, column), and each channel has its own [low, high]. Files of another version
than `parquet.VERSION` are refused.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.core.files import atomic_path
from pipeline.imaging import channels
from pipeline.imaging.geometry import Geometry
from pipeline.imaging.intensity import Edges, to_unit
from pipeline.shards.parquet import damaged, open_file, reading, with_metadata

IMAGE_TYPES = ("<i2", "<f4")  # little-endian int16 and float32
_PIXELS = ["rows", "columns", "image", "label"]

_SHARD_FIELDS = pa.schema(
    [
        pa.field("case", pa.string(), nullable=False),
        pa.field("slice", pa.int32(), nullable=False),
        pa.field("rows", pa.int32(), nullable=False),
        pa.field("columns", pa.int32(), nullable=False),
        pa.field("spacing_mm", pa.list_(pa.float64(), 3), nullable=False),
        pa.field("image", pa.large_binary(), nullable=False),
        pa.field("label", pa.large_binary(), nullable=False),
        pa.field("counts", pa.list_(pa.int64()), nullable=False),
        pa.field("content", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, eq=False)
class Source:
    """Where a shard comes from.

    Attributes:
        image_sha256, label_sha256: of the raw files.
        geometry: grid of the raw volume.
    """

    image_sha256: str
    label_sha256: str
    geometry: Geometry


@dataclass(frozen=True, eq=False)
class Prepared:
    """A prepared case in memory, as `write_shard` takes it.

    Attributes:
        case: id of the case.
        images: (Z, H, W), or (Z, C, H, W) of several channels, int16 or float32 in source units,
            within [low, high].
        labels: (Z, H, W) uint8, class indices.
        spacing_mm: voxel sides along slice, row and column.
        low, high: source units that become 0 and 1, of each of several channels.
        class_names: organs; `class_names[k - 1]` is class k.
        source: the raw files that it was made from.
        warnings: what the raw files leave open or may be a mistake, one sentence each.
    """

    case: str
    images: NDArray[np.int16] | NDArray[np.float32]
    labels: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]
    low: Edges
    high: Edges
    class_names: list[str]
    source: Source
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice of a shard.

    Attributes:
        case: id of the case.
        index: place in the volume along the slices' axis.
        image: (H, W), or (C, H, W) of several channels, float32 in [0, 1].
        label: (H, W) uint8, class indices.
        spacing_mm: voxel sides along slice, row and column.
    """

    case: str
    index: int
    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    spacing_mm: tuple[float, float, float]

    @property
    def picture(self) -> NDArray[np.float32]:
        """What pictures show: the image (H, W), of several channels the first."""
        return self.image if self.image.ndim == 2 else self.image[0]


def write_shard(path: Path, prepared: Prepared) -> None:
    """Write a shard atomically; the same case gives the same bytes.

    Raises:
        ValueError: unequal shapes, other types, or a label without a class name.
    """
    images, labels = prepared.images, prepared.labels
    count = len(channels.many(prepared.low))
    expected = labels.shape if count == 1 else (len(labels), count, *labels.shape[1:])
    if labels.ndim != 3 or images.shape != expected or labels.dtype != np.uint8:
        raise ValueError(
            f"expected images and uint8 labels of one shape (Z, H, W), or images (Z, C, H, W) with "
            f"bounds of C channels, got {images.shape} {images.dtype} and {labels.shape} "
            f"{labels.dtype}"
        )
    image_type = images.dtype.newbyteorder("<").str
    if image_type not in IMAGE_TYPES:
        raise ValueError(f"expected int16 or float32 images, got {images.dtype}")
    metadata = {
        "kind": "shard",
        "case": prepared.case,
        "class_names": list(prepared.class_names),
        "image_type": image_type,
        "low": _stored(prepared.low),
        "high": _stored(prepared.high),
        "image_sha256": prepared.source.image_sha256,
        "label_sha256": prepared.source.label_sha256,
        "source_shape": list(prepared.source.geometry.shape),
        "source_affine": prepared.source.geometry.affine.ravel().tolist(),
        "warnings": list(prepared.warnings),
    }
    schema = with_metadata(_SHARD_FIELDS, metadata)
    classes = len(prepared.class_names) + 1
    with (
        atomic_path(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            compression="zstd",
            compression_level=3,
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        ) as writer,
    ):
        for index, (image, label) in enumerate(zip(images, labels, strict=True)):
            row = _slice_row(prepared, index, image.astype(image_type), label, classes)
            writer.write_table(pa.Table.from_pylist([row], schema), row_group_size=1)


class ShardReader:
    """Reads a shard slice by slice.

    The file is opened at the first use and once more in every process that the reader goes to.

    Args:
        path: the shard.

    Raises, when the file is first used:
        UserError: missing, damaged, or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._opened: tuple[int, pq.ParquetFile, dict[str, Any]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_opened": None}

    def __len__(self) -> int:
        return self._file.num_row_groups

    @property
    def case(self) -> str:
        """Id of the case."""
        return self._metadata["case"]

    @property
    def class_names(self) -> list[str]:
        """Organs; `class_names[k - 1]` is class k."""
        return self._metadata["class_names"]

    @property
    def bounds(self) -> tuple[Edges, Edges]:
        """(low, high): the values in source units (CT: HU) that become 0 and 1, tuples of them for
        several channels.
        """
        return _edges(self._metadata["low"]), _edges(self._metadata["high"])

    @property
    def channels(self) -> int:
        """Number of channels; images of one have no axis for it."""
        return len(channels.many(self.bounds[0]))

    @property
    def image_type(self) -> np.dtype:
        """Type of the stored images, one of IMAGE_TYPES."""
        return np.dtype(self._metadata["image_type"])

    @property
    def source(self) -> Source:
        """The raw files that the shard was made from."""
        metadata = self._metadata
        with reading(self.path):
            affine = np.reshape(metadata["source_affine"], (4, 4))
            geometry = Geometry(tuple(metadata["source_shape"]), affine)
            return Source(metadata["image_sha256"], metadata["label_sha256"], geometry)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the raw files leave open or may be a mistake, one sentence each."""
        return tuple(self._metadata.get("warnings", ()))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slices, rows, columns)."""
        return len(self), *self._values(self._table(0, ["rows", "columns"]), "rows", "columns")

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel sides along slice, row and column in mm."""
        (spacing,) = self._values(self._table(0, ["spacing_mm"]), "spacing_mm")
        return tuple(spacing)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(slices, classes): pixels of each class in each slice, the background first.

        They are a column of the shard, so no image is decoded.
        """
        with reading(self.path):
            column = self._file.read(columns=["counts"]).column("counts").to_pylist()
        return np.array(column, np.int64).reshape(len(self), len(self.class_names) + 1)

    def read(self, index: int) -> Slice:
        """The slice at `index`, its image mapped to [0, 1]; IndexError beyond the last."""
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: slice {index} of {len(self)}")
        table = self._table(index, ["case", "spacing_mm", *_PIXELS])
        image, label = self._decode(table)
        unit = to_unit(image, *self.bounds)
        case, spacing = self._values(table, "case", "spacing_mm")
        return Slice(case, index, unit, label, tuple(spacing))

    def read_stored(self, index: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Image (H, W) or (C, H, W) in source units, in `image_type`, read-only; label (H, W)."""
        return self._decode(self._table(index, _PIXELS))

    def read_volume(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Images (Z, H, W) or (Z, C, H, W) float32 in [0, 1] and labels (Z, H, W) uint8."""
        slices = [self.read(index) for index in range(len(self))]
        return np.stack([item.image for item in slices]), np.stack([item.label for item in slices])

    def verify(self) -> None:
        """Compare every slice with the hash that was written beside it.

        Raises:
            UserError: a slice differs from what was written.
        """
        for index in range(len(self)):
            table = self._table(index)
            image, label = self._decode(table)
            place, content = self._values(table, "slice", "content")
            if place != index or content != _content(image, label):
                raise damaged(self.path, f"slice {index} has changed")

    @property
    def _file(self) -> pq.ParquetFile:
        return self._open()[1]

    @property
    def _metadata(self) -> dict[str, Any]:
        return self._open()[2]

    def _open(self) -> tuple[int, pq.ParquetFile, dict[str, Any]]:
        # a forked process must not share its parent's file position
        if self._opened is None or self._opened[0] != os.getpid():
            file, metadata = open_file(self.path, "shard", _SHARD_FIELDS)
            with reading(self.path):
                if metadata["image_type"] not in IMAGE_TYPES or not _rise(
                    _edges(metadata["low"]), _edges(metadata["high"])
                ):
                    raise ValueError("its metadata hold no image type or intensity range")
                if file.num_row_groups == 0 or file.num_row_groups != file.metadata.num_rows:
                    raise ValueError("it should hold one slice a row group")
            self._opened = (os.getpid(), file, metadata)
        return self._opened

    def _table(self, index: int, columns: list[str] | None = None) -> pa.Table:
        """The row of a slice: the named columns, or all."""
        with reading(self.path):
            # for one slice, Arrow's threads cost as much as they save
            return self._file.read_row_group(index, columns=columns, use_threads=False)

    def _values(self, table: pa.Table, *columns: str) -> tuple[Any, ...]:
        """Values of some columns of one row, as Python objects."""
        with reading(self.path):
            return tuple(table.column(name)[0].as_py() for name in columns)

    def _decode(self, table: pa.Table) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Image (H, W) or (C, H, W) in source units, read-only, and label (H, W) from a row with
        _PIXELS.
        """
        shape = self._values(table, "rows", "columns")
        count = self.channels
        with reading(self.path):
            # views of Arrow's memory: a Python value would be a copy
            image, label = (table.column(name)[0].as_buffer() for name in ("image", "label"))
            image = np.frombuffer(image, self.image_type)
            image = image.reshape(shape if count == 1 else (count, *shape))
            label = np.frombuffer(label, np.uint8).reshape(shape)
        return image, label.copy()


def _slice_row(
    prepared: Prepared, index: int, image: NDArray[Any], label: NDArray[np.uint8], classes: int
) -> dict[str, Any]:
    """The row of one slice; `classes` counts the background."""
    counts = np.bincount(label.ravel(), minlength=classes)
    if len(counts) > classes:
        raise ValueError(f"label {len(counts) - 1} in slice {index} has no class name")
    return {
        "case": prepared.case,
        "slice": index,
        "rows": label.shape[0],
        "columns": label.shape[1],
        "spacing_mm": list(prepared.spacing_mm),
        "image": image.tobytes(),
        "label": label.tobytes(),
        "counts": counts.tolist(),
        "content": _content(image, label),
    }


def _content(image: NDArray[Any], label: NDArray[np.uint8]) -> str:
    """SHA-256 over type, shape and pixels of a stored slice."""
    head = f"{image.dtype.str} {' '.join(map(str, image.shape))}\n".encode()
    return hashlib.sha256(head + image.tobytes() + label.tobytes()).hexdigest()


def _stored(edge: Edges) -> float | list[float]:
    """Bounds as metadata hold them: a number, or a list of them for several channels."""
    return [float(each) for each in edge] if isinstance(edge, tuple) else float(edge)


def _edges(stored: float | list[float]) -> Edges:
    """The opposite of `_stored`."""
    return tuple(stored) if isinstance(stored, list) else stored


def _rise(low: Edges, high: Edges) -> bool:
    """Whether each low bound is below its high one."""
    pairs = zip(channels.many(low), channels.many(high), strict=True)
    return all(first < last for first, last in pairs)

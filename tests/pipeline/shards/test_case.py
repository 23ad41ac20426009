import json
import pickle
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import UserError
from pipeline.imaging.geometry import Geometry
from pipeline.shards import manifest, parquet
from pipeline.shards.case import Prepared, ShardReader, Source, write_shard
from tests.pipeline.conftest import AFFINE, tiny_image, tiny_label

NAMES = [f"organ {index}" for index in range(1, 14)]
ROW = manifest.ManifestRow(
    case="a",
    shard="a.parquet",
    shard_sha256="00",
    image_sha256="11",
    label_sha256="22",
    shape=(30, 20, 10),
    spacing_mm=(3.0, 0.7, 0.8),
    source_shape=(10, 20, 30),
    source_affine=tuple(AFFINE.ravel().tolist()),
    orientation="LAS",
    low=-125.0,
    high=275.0,
    slices=30,
    counts=(5, 6),
    role=None,
)
MANIFEST = manifest.Manifest("tiny", ["organ"], {"kind": "window"}, {"axes": "SPL"}, (ROW,))


def prepared(images=None, low=-125.0, high=275.0) -> Prepared:
    images = np.clip(tiny_image(), -125, 275).T if images is None else images
    source = Source("11", "22", Geometry((10, 20, 30), AFFINE))
    labels = tiny_label().T
    return Prepared("a", images, labels, (3.0, 0.7, 0.8), low, high, NAMES, source)


@pytest.fixture
def path(tmp_path):
    write_shard(tmp_path / "a.parquet", prepared())
    return tmp_path / "a.parquet"


def test_a_slice_comes_back_scaled(path):
    reader = ShardReader(path)
    item = reader.read(7)
    assert (len(reader), reader.shape) == (30, (30, 20, 10))
    assert (item.case, item.index, item.spacing_mm) == ("a", 7, (3.0, 0.7, 0.8))
    assert (item.image.dtype, item.label.dtype) == (np.float32, np.uint8)
    assert (item.image.min(), item.image.max()) == (0, 1)
    # whole HU come back without loss
    hu = np.rint(item.image * 400 - 125)
    assert np.array_equal(hu, np.clip(tiny_image(), -125, 275).T[7])
    assert np.array_equal(item.label, tiny_label().T[7])
    with pytest.raises(IndexError):
        reader.read(30)


def test_a_volume_is_its_slices(path):
    reader = ShardReader(path)
    images, labels = reader.read_volume()
    assert images.shape == labels.shape == (30, 20, 10)
    assert np.array_equal(images[7], reader.read(7).image)
    assert np.array_equal(labels, tiny_label().T)


def test_float_images(tmp_path):
    images = (tiny_image().T / 1000).astype(np.float32)
    low, high = float(images.min()), float(images.max())
    write_shard(tmp_path / "b.parquet", prepared(images, low, high))
    read, _ = ShardReader(tmp_path / "b.parquet").read_volume()
    assert (read.min(), read.max()) == (0, 1)
    np.testing.assert_allclose(read, (images - low) / (high - low), atol=1e-6)


def test_counts_and_description(path):
    reader = ShardReader(path)
    expected = [np.bincount(label.ravel(), minlength=14) for label in tiny_label().T]
    assert np.array_equal(reader.counts, expected)
    assert reader.class_names == NAMES
    assert reader.bounds == (-125.0, 275.0)
    assert reader.spacing_mm == (3.0, 0.7, 0.8)
    assert np.array_equal(reader.source.geometry.affine, AFFINE)


def test_one_slice_a_row_group(path):
    meta = pq.ParquetFile(path).metadata
    assert meta.num_row_groups == meta.num_rows == 30
    column = meta.row_group(0).column(meta.schema.names.index("image"))
    assert column.compression == "ZSTD"
    assert column.statistics is None
    assert not column.has_dictionary_page


def test_same_case_same_bytes(path, tmp_path):
    write_shard(tmp_path / "again.parquet", prepared())
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()


def test_reader_goes_to_other_processes(path):
    reader = ShardReader(path)
    first = reader.read(3).image
    copy = pickle.loads(pickle.dumps(reader))
    assert np.array_equal(copy.read(3).image, first)
    with get_context("fork").Pool(2) as pool:
        images = pool.map(read_image, [(reader, index) for index in (3, 4, 3)])
    assert np.array_equal(images[0], first)
    assert np.array_equal(images[2], first)


def read_image(arguments):
    reader, index = arguments
    return reader.read(index).image


def test_a_changed_byte_is_found_when_its_page_is_read(path):
    whole = path.read_bytes()
    column = pq.ParquetFile(path).metadata.row_group(9).column(5)
    assert column.path_in_schema == "image"
    end = column.data_page_offset + column.total_compressed_size
    for place in range(end - 200, end, 10):
        data = bytearray(whole)
        data[place] ^= 0xFF
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"a\.parquet: damaged"):
            ShardReader(path).read(9)


def test_truncated_and_missing_files(path, tmp_path):
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"a\.parquet: damaged"):
        len(ShardReader(path))
    with pytest.raises(UserError, match="there is no such shard"):
        len(ShardReader(tmp_path / "none.parquet"))


def rewritten(path, **about):
    table = pq.read_table(path)
    described = {**json.loads(table.schema.metadata[b"hsam"]), **about}
    table = table.replace_schema_metadata({"hsam": json.dumps(described)})
    pq.write_table(table, path, row_group_size=1)


def test_another_version_is_refused(path):
    rewritten(path, version=parquet.VERSION + 1)
    with pytest.raises(UserError, match="expected a shard of version 1, found shard file of"):
        ShardReader(path).read(0)


def test_other_files_are_refused(path, tmp_path):
    with pytest.raises(UserError, match="expected a manifest of version 1, found shard"):
        manifest.read_manifest(path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match="expected a shard of version 1, found another file"):
        len(ShardReader(tmp_path / "b.parquet"))


def test_content_hash_guards_the_pixels(path):
    table = pq.read_table(path)
    labels = table.column("label").to_pylist()
    labels[4] = bytes(len(labels[4]))
    place = table.schema.get_field_index("label")
    table = table.set_column(place, table.schema.field("label"), pa.array(labels, "large_binary"))
    pq.write_table(table, path, row_group_size=1)
    with pytest.raises(UserError, match="slice 4 has changed"):
        ShardReader(path).verify()


def test_what_the_schema_has_no_place_for(tmp_path):
    case = prepared()
    for change, message in (
        ({"labels": case.labels.astype(np.int64)}, "uint8 labels"),
        ({"images": case.images[1:]}, "of one shape"),
        ({"images": case.images.astype(np.float64)}, "int16 or float32"),
        ({"class_names": ["one"]}, "label 12 in slice 0 has no class name"),
    ):
        with pytest.raises(ValueError, match=message):
            write_shard(tmp_path / "a.parquet", replace(case, **change))
    assert list(tmp_path.iterdir()) == []


def test_manifest_round_trip(tmp_path):
    manifest.write_manifest(tmp_path / "m.parquet", MANIFEST)
    read = manifest.read_manifest(tmp_path / "m.parquet")
    assert read == MANIFEST
    assert len(read) == 1
    assert np.array_equal(read.case("a").geometry.affine, AFFINE)
    with pytest.raises(KeyError):
        read.case("b")


def test_slices_of_several_channels(tmp_path):
    one = prepared().images
    images = np.stack([one, one // 2], 1)
    many = prepared(images, (-125.0, -63.0), (275.0, 138.0))
    write_shard(tmp_path / "a.parquet", many)
    reader = ShardReader(tmp_path / "a.parquet")
    reader.verify()
    assert (reader.channels, reader.shape) == (2, (30, 20, 10))
    assert reader.bounds == ((-125.0, -63.0), (275.0, 138.0))
    item = reader.read(7)
    assert item.image.shape == (2, 20, 10) and item.label.shape == (20, 10)
    assert np.array_equal(np.rint(item.image[1] * 201 - 63), one[7] // 2)
    assert np.array_equal(item.picture, item.image[0])
    assert reader.read_volume()[0].shape == (30, 2, 20, 10)


@pytest.mark.parametrize(
    ("shape", "low", "high"),
    [
        ((30, 2, 20, 10), 0.0, 1.0),
        ((30, 20, 10), (0.0, 0.0), (1.0, 1.0)),
        ((30, 3, 20, 10), (0.0, 0.0), (1.0, 1.0)),
        ((30, 2, 10, 20), (0.0, 0.0), (1.0, 1.0)),
    ],
)
def test_channels_that_do_not_fit_their_bounds(tmp_path, shape, low, high):
    with pytest.raises(ValueError, match="of one shape"):
        write_shard(tmp_path / "a.parquet", prepared(np.zeros(shape, np.float32), low, high))

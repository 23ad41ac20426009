import pickle
import shutil
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from pipeline.shards.case import ShardReader
from pipeline.training import slices as slices_module
from tests.pipeline.training.conftest import NAMES, SIZES, dataset, mib_of


@pytest.mark.parametrize("cached", [0, 7])
def test_an_item_is_the_named_slice_as_the_shard_holds_it(slice_shards, cached):
    slices = dataset(slice_shards, mib_of(cached))
    slices.fill_cache()
    for number, (case, place) in enumerate(NAMES):
        image, label, bounds = slices[number]
        shard = ShardReader(slice_shards / f"{case}.parquet")
        stored, classes = shard.read_stored(place)
        assert image.numpy().dtype == stored.dtype and np.array_equal(image, stored)
        assert label.dtype == torch.uint8 and np.array_equal(label, classes)
        assert bounds == shard.bounds


def test_there_is_no_slice_beyond_the_last(slice_shards):
    with pytest.raises(IndexError, match="slice 7 of 7"):
        dataset(slice_shards)[7]


def test_class_counts_come_from_the_columns(slice_shards, monkeypatch):
    monkeypatch.setattr(ShardReader, "read_stored", lambda *_: pytest.fail("decoded an image"))
    counts = dataset(slice_shards).class_counts()
    assert counts.shape == (7, 4)
    assert counts.sum(1).tolist() == [np.prod(SIZES[case]) for case, _ in NAMES]
    assert np.array_equal(counts[3], ShardReader(slice_shards / "a.parquet").counts[4])


def test_the_cache_is_read_and_never_larger_than_its_limit(slice_shards, monkeypatch):
    slices = dataset(slice_shards, mib_of(3) + 1e-6)
    slices.fill_cache()
    assert slices.cached == 3
    monkeypatch.setattr(ShardReader, "read_stored", lambda *_: pytest.fail("decoded again"))
    assert [tuple(slices[index].image.shape) for index in range(3)] == [
        SIZES[case] for case, _ in NAMES[:3]
    ]
    with pytest.raises(pytest.fail.Exception, match="decoded again"):
        slices[3]


def test_few_shards_are_open_at_a_time(slice_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(slices_module, "READERS", 2)
    shutil.copytree(slice_shards, tmp_path / "shards")
    slices = dataset(tmp_path / "shards")
    for index in range(7):
        slices[index]
        files = {Path(file.path) for file in psutil.Process().open_files()}
        assert 1 <= sum(file.is_relative_to(tmp_path) for file in files) <= 2


def test_a_dataset_goes_to_other_processes_without_its_files(slice_shards):
    slices = dataset(slice_shards)
    slices[0]
    assert torch.equal(pickle.loads(pickle.dumps(slices))[1][0], slices[1][0])

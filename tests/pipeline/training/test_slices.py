import itertools
import operator
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from pipeline.core.errors import UserError
from pipeline.shards.case import ShardReader
from pipeline.training import slices as slices_module
from pipeline.training.slices import SliceDataset, SliceLoader
from tests.pipeline.conftest import save_shard

SIZES = {"a": (20, 24), "b": (20, 24), "c": (18, 18)}
NAMES = [("b", 3), ("a", 0), ("c", 5), ("a", 4), ("b", 0), ("c", 1), ("a", 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three shards of six slices; two as int16, one as float32 and of other sides."""
    folder = tmp_path_factory.mktemp("shards")
    random = np.random.default_rng(5)
    for case, size in SIZES.items():
        labels = random.integers(0, 4, (6, *size), np.uint8)
        images = random.random((6, *size))
        if case == "a":
            images = (1000 * images).astype(np.int16)
        save_shard(folder / f"{case}.parquet", images, labels, organs=3)
    return folder


def dataset(folder, cache_mib: float = 0) -> SliceDataset:
    return SliceDataset(folder, NAMES, cache_mib)


def mib_of(slices: int) -> float:
    """What the first slices take: an image as its shard has it, a label of one byte."""
    pixels = [SIZES[case][0] * SIZES[case][1] for case, _ in NAMES[:slices]]
    types = [3 if case == "a" else 5 for case, _ in NAMES[:slices]]
    return sum(map(operator.mul, pixels, types)) / 2**20


@pytest.mark.parametrize("cached", [0, 7])
def test_an_item_is_the_named_slice_as_the_shard_holds_it(folder, cached):
    slices = dataset(folder, mib_of(cached))
    slices.fill_cache()
    for number, (case, place) in enumerate(NAMES):
        image, label, index = slices[number]
        item = ShardReader(folder / f"{case}.parquet").read(place)
        assert index == number
        assert image.dtype == torch.float32 and np.array_equal(image, item.image)
        assert label.dtype == torch.uint8 and np.array_equal(label, item.label)


def test_there_is_no_slice_beyond_the_last(folder):
    with pytest.raises(IndexError, match="slice 7 of 7"):
        dataset(folder)[7]


def test_class_counts_come_from_the_columns(folder, monkeypatch):
    monkeypatch.setattr(ShardReader, "read", lambda *_: pytest.fail("decoded an image"))
    counts = dataset(folder).class_counts()
    assert counts.shape == (7, 4)
    assert counts.sum(1).tolist() == [np.prod(SIZES[case]) for case, _ in NAMES]
    assert np.array_equal(counts[3], ShardReader(folder / "a.parquet").counts[4])


@pytest.mark.parametrize(
    ("cached", "workers", "start"),
    [
        (0, 0, None),
        (3, 0, None),
        (7, 0, None),
        (0, 2, "fork"),
        (3, 2, "fork"),
        (7, 2, "fork"),
        (3, 2, "spawn"),
    ],
)
def test_batches_are_the_same_with_any_workers_and_cache(folder, cached, workers, start):
    whole = dataset(folder)
    whole[0]  # a reader that is open when the workers start
    slices = dataset(folder, mib_of(cached))
    slices[0]
    loader = SliceLoader(slices, 3, workers, start_method=start)
    assert slices.cached == cached
    for order in ([6, 2, 2, 0, 5, 1, 4], [1, 3]):
        batches = list(loader.epoch(torch.tensor(order)))
        assert [len(indices) for *_, indices in batches] == ([3, 3, 1] if len(order) > 2 else [2])
        assert torch.cat([indices for *_, indices in batches]).tolist() == order
        for images, labels, indices in batches:
            for image, label, index in zip(images, labels, indices.tolist(), strict=True):
                assert torch.equal(image, whole[index][0])
                assert torch.equal(label, whole[index][1])


def test_an_epoch_that_was_left_does_not_reach_into_the_next(folder):
    loader = SliceLoader(dataset(folder), 1, workers=1, start_method="fork")
    next(iter(loader.epoch(range(7))))
    assert [indices.item() for *_, indices in loader.epoch([4, 5])] == [4, 5]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_may_be_of_any_size_and_without_end(folder, workers):
    loader = SliceLoader(dataset(folder), 1, workers)
    stream = loader.batches([index] * (1 + index % 3) for index in itertools.cycle(range(7)))
    for index in [*range(7), 0, 1]:
        assert next(stream)[2].tolist() == [index] * (1 + index % 3)


def test_the_cache_is_read_and_never_larger_than_its_limit(folder, monkeypatch):
    slices = dataset(folder, mib_of(3) + 1e-6)
    slices.fill_cache()
    assert slices.cached == 3
    monkeypatch.setattr(ShardReader, "read", lambda *_: pytest.fail("decoded again"))
    assert [slices[index][2] for index in range(3)] == [0, 1, 2]
    with pytest.raises(pytest.fail.Exception, match="decoded again"):
        slices[3]


def test_few_shards_are_open_at_a_time(folder, monkeypatch):
    monkeypatch.setattr(slices_module, "READERS", 2)
    slices = dataset(folder)
    for index in range(7):
        slices[index]
        assert len(slices._readers._open) <= 2


def test_a_dataset_goes_to_other_processes_without_its_files(folder):
    slices = dataset(folder)
    slices[0]
    assert torch.equal(pickle.loads(pickle.dumps(slices))[1][0], slices[1][0])


def test_random_numbers_of_the_training_are_left_alone(folder):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(SliceLoader(dataset(folder), 4).epoch(range(7)))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_shard_is_named(folder, tmp_path, workers):
    whole = (folder / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    loader = SliceLoader(SliceDataset(tmp_path, [("a", 0)]), 1, workers)
    with pytest.raises(UserError, match=r"a\.parquet: damaged") as caught:
        list(loader.epoch([0]))
    assert "\n" not in str(caught.value)  # no traceback of a worker


# in a process of its own: PyTorch raises wherever the main thread is, be that in pytest itself
KILLED = """
import multiprocessing, sys
from pathlib import Path
from pipeline.core.errors import UserError
from pipeline.training.slices import SliceDataset, SliceLoader, explaining_killed_workers

data = SliceDataset(Path(sys.argv[1]), [("a", 0)] * 200)
try:
    with explaining_killed_workers():
        batches = SliceLoader(data, 1, workers=1, start_method="fork").epoch(range(200))
        next(batches)
        (worker,) = multiprocessing.active_children()
        worker.kill()
        list(batches)
except UserError as error:
    print(error)
"""


def test_a_killed_worker_is_reported(folder):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith("a process that reads slices was killed"), done.stderr

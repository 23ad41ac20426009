import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial

import pytest
import torch

from pipeline.core import signals
from pipeline.core.errors import UserError
from pipeline.training import loader as loading
from pipeline.training.loader import SliceLoader, explaining_killed_workers
from pipeline.training.slices import SliceDataset
from tests.pipeline.training.conftest import NAMES, SIZES, bytes_of, dataset, decoded, mib_of


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
def test_batches_are_the_same_with_any_workers_and_cache(slice_shards, cached, workers, start):
    whole = decoded(slice_shards)
    slices = dataset(slice_shards, mib_of(cached))
    slices[0]  # a reader that is open when the workers start
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


def test_a_batch_of_workers_travels_as_one_tensor(slice_shards):
    for _, labels, indices in SliceLoader(dataset(slice_shards), 3, workers=1).epoch(range(7)):
        assert len({label.untyped_storage().data_ptr() for label in labels}) == 1
        assert labels[0].untyped_storage().nbytes() == sum(bytes_of(NAMES[i]) for i in indices)


@pytest.mark.parametrize("room", [math.inf, 0])
def test_a_set_that_is_cached_whole_lies_on_the_device_where_it_has_room(slice_shards, room):
    slices = dataset(slice_shards, mib_of(7))
    on_cpu = SliceLoader(slices, 7, workers=1)
    assert on_cpu.workers == 0
    for _, labels, _ in on_cpu.epoch(range(7)):
        assert {label.untyped_storage().data_ptr() for label in labels} == {
            slices.cache.data.data_ptr()
        }
    # a device without pixels shows that all that follows is done there
    elsewhere = SliceLoader(slices, 3, device="meta", room=room)
    for images, labels, indices in elsewhere.epoch(range(7)):
        assert {each.device.type for each in (*images, *labels)} == {"meta"}
        assert [tuple(image.shape) for image in images] == [SIZES[NAMES[i][0]] for i in indices]


@pytest.mark.gpu
@pytest.mark.parametrize("cached", [0, 7])
@pytest.mark.parametrize("room", [math.inf, 0])
def test_a_gpu_gets_the_same_bits_and_waits_for_none(slice_shards, cached, room):
    loader = SliceLoader(dataset(slice_shards, mib_of(cached)), 3, device="cuda", room=room)
    list(loader.epoch(range(7)))
    torch.cuda.set_sync_debug_mode("error")
    try:
        batches = list(loader.epoch(range(7)))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    whole = decoded(slice_shards)
    for images, labels, indices in batches:
        for image, label, index in zip(images, labels, indices.tolist(), strict=True):
            assert torch.equal(image.cpu(), whole[index][0])
            assert torch.equal(label.cpu(), whole[index][1])


def test_an_epoch_that_was_left_does_not_reach_into_the_next(slice_shards):
    loader = SliceLoader(dataset(slice_shards), 1, workers=1, start_method="fork")
    next(iter(loader.epoch(range(7))))
    assert [indices.item() for *_, indices in loader.epoch([4, 5])] == [4, 5]


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_may_be_of_any_size_and_without_end(slice_shards, workers):
    loader = SliceLoader(dataset(slice_shards), 1, workers)
    stream = loader.batches([index] * (1 + index % 3) for index in itertools.cycle(range(7)))
    for index in [*range(7), 0, 1]:
        assert next(stream)[2].tolist() == [index] * (1 + index % 3)


def test_random_numbers_of_the_training_are_left_alone(slice_shards):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(SliceLoader(dataset(slice_shards), 4).epoch(range(7)))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_shard_is_named(slice_shards, tmp_path, workers):
    whole = (slice_shards / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a\.parquet: damaged") as caught:
        list(SliceLoader(SliceDataset(tmp_path, [("a", 0)]), 1, workers).epoch([0]))
    assert "\n" not in str(caught.value)  # no traceback of a worker


# in a process of its own: PyTorch raises wherever the main thread is, be that in pytest itself
KILLED = """
import multiprocessing, sys
from pathlib import Path
from pipeline.core.errors import UserError
from pipeline.training.loader import SliceLoader, explaining_killed_workers
from pipeline.training.slices import SliceDataset

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


def test_a_killed_worker_is_reported(slice_shards):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(slice_shards)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.startswith("a process that reads slices was killed"), done.stderr


def test_too_little_shared_memory_is_said_and_done_without(slice_shards, monkeypatch, capsys):
    monkeypatch.setattr(loading, "free_shared_memory", lambda: 2**20 + 6000)
    # 20 x 24 pixels of 5 bytes: 2,400 a slice, of which a worker has 4 under way
    starved = SliceLoader(dataset(slice_shards), 1, workers=1)
    assert starved.workers == 0
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("/dev/shm has 1 MiB free, 1 processes that read slices need 1 MiB")
    assert "slices are read without them; make it larger (docker run --shm-size" in said
    assert [indices.tolist() for *_, indices in starved.epoch([2, 0])] == [[2], [0]]
    monkeypatch.setattr(loading, "free_shared_memory", lambda: 2**20 + 9600)
    assert SliceLoader(dataset(slice_shards), 1, workers=1).workers == 1
    assert SliceLoader(dataset(slice_shards), 1, workers=1, devices=2).workers == 0
    assert capsys.readouterr().err.count("slices are read without them") == 1


# the first loader sees what is free; the second finds out when it is too late
SMALL = """
import sys
from pathlib import Path
import torch
from pipeline.training import loader
from tests.pipeline.training.conftest import dataset, decoded

whole = decoded(Path(sys.argv[1]))
assert loader.SliceLoader(dataset(Path(sys.argv[1])), 7, workers=1).workers == 0
loader.free_shared_memory = lambda: 2**40
late = loader.SliceLoader(dataset(Path(sys.argv[1])), 70, workers=1)
assert late.workers == 1
for images, labels, indices in late.epoch(list(range(7)) * 30):
    for image, label, index in zip(images, labels, indices.tolist(), strict=True):
        assert torch.equal(image, whole[index][0]) and torch.equal(label, whole[index][1])
print("read")
"""
MOUNT = 'mount -t tmpfs -o size=100k tmpfs /dev/shm && exec "$@"'


def test_a_really_small_shared_memory_loses_nothing(slice_shards):
    unshared = ["unshare", "--mount", "--map-root-user", "sh", "-c", MOUNT, "sh"]
    if not shutil.which("unshare") or subprocess.run([*unshared, "true"], check=False).returncode:
        pytest.skip("needs to mount a file system of its own")
    command = [*unshared, sys.executable, "-c", SMALL, str(slice_shards)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "read\n", done.stderr
    assert len(done.stderr.splitlines()) == 1


class Stuck(SliceDataset):
    """Gives one slice, and then nothing."""

    def __getitem__(self, index):
        if index:
            time.sleep(3600)
        return super().__getitem__(index)


def test_workers_that_give_nothing_are_a_sentence(slice_shards, monkeypatch):
    monkeypatch.setattr(loading, "WAIT_SECONDS", 0.5)
    stuck = SliceLoader(Stuck(slice_shards, [("a", 0)] * 3), 1, workers=1)
    said = pytest.raises(UserError, match=r"no slices came for 0\.5 seconds")
    with said, explaining_killed_workers():
        list(stuck.epoch(range(3)))


@pytest.mark.parametrize("first", [True, False], ids=["before the wait", "during the wait"])
def test_a_signal_ends_a_wait_that_lasts(slice_shards, monkeypatch, first):
    monkeypatch.setattr(signals, "GRACE", 0.2)
    stuck = SliceLoader(Stuck(slice_shards, [("a", 0)] * 3), 1, workers=1)
    with signals.listening() as stop, pytest.raises(signals.WaitEnded):
        batches = stuck.batches([[0], [1]], stop)
        next(batches)
        ask = partial(os.kill, os.getpid(), signal.SIGTERM)
        ask() if first else threading.Timer(0.2, ask).start()
        next(batches)
    assert stop.signal == signal.SIGTERM

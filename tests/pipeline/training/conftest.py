"""Three small shards, and seven named slices of them, for the tests of slices and loader."""

import numpy as np
import pytest
import torch

from pipeline.shards.case import ShardReader
from pipeline.training.slices import SliceDataset
from tests.pipeline.conftest import save_shard

SIZES = {"a": (20, 24), "b": (20, 24), "c": (18, 18)}
NAMES = [("b", 3), ("a", 0), ("c", 5), ("a", 4), ("b", 0), ("c", 1), ("a", 1)]


@pytest.fixture(scope="module")
def slice_shards(tmp_path_factory):
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


def decoded(folder) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Image in [0, 1] and label of each slice, straight from the shards."""
    items = [ShardReader(folder / f"{case}.parquet").read(place) for case, place in NAMES]
    return [(torch.from_numpy(item.image), torch.from_numpy(item.label)) for item in items]


def mib_of(slices: int) -> float:
    """What the first slices take: an image as its shard has it, a label of one byte."""
    return sum(map(bytes_of, NAMES[:slices])) / 2**20


def bytes_of(name: tuple[str, int]) -> int:
    """What a slice takes: an image of 2 or 4 bytes a pixel, a label of one."""
    case = name[0]
    return SIZES[case][0] * SIZES[case][1] * (3 if case == "a" else 5)

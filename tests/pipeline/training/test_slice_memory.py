import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.conftest import save_shard

SIDE, CASES, SLICES = 192, 3, 12
# an epoch in a process of its own; prints the peak of its resident memory, KiB
EPOCH = """
import sys
from pathlib import Path
import torch
from pipeline.training.augment import augment, sample_seeds
from pipeline.core.params.load import load
from pipeline.training.loader import SliceLoader
from pipeline.training.sampling import epoch_order, rare_organ_weights
from pipeline.training.slices import SliceDataset

torch.set_num_threads(1)
folder, side, slices, cache = Path(sys.argv[1]), *map(int, sys.argv[2:])
settings = load([]).train.augment
cases = sorted(path.stem for path in folder.glob("*.parquet"))
names = [(case, index) for case in cases for index in range(slices)]
data = SliceDataset(folder, names, cache)
order = epoch_order(len(data), 0, 0, rare_organ_weights(data.class_counts()))
seen = 0
for images, labels, indices in SliceLoader(data, 8).epoch(order):
    augment(images, labels, settings, sample_seeds(0, 0, indices), side)
    seen += len(indices)
assert seen == len(data)
# getrusage would give the parent's peak where that is larger
status = Path("/proc/self/status").read_text()
print(status.split("VmHWM:")[1].split()[0])
"""


@pytest.fixture(scope="module")
def one_copy(tmp_path_factory):
    """A small data set: 36 slices, 6.3 MiB decoded."""
    folder = tmp_path_factory.mktemp("one")
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    for case in range(CASES):
        images = np.stack([rows * columns * (slice_ + 1) / SLICES for slice_ in range(SLICES)])
        labels = (images * 8.5).astype(np.uint8)
        save_shard(folder / f"{case}.parquet", images, labels)
    return folder


def peak(one_copy, folder, copies: int, cache_mib: int) -> float:
    folder.mkdir()
    for copy in range(copies):
        for path in one_copy.glob("*.parquet"):
            os.link(path, folder / f"{copy}-{path.name}")
    arguments = [str(folder), str(SIDE), str(SLICES), str(cache_mib)]
    done = subprocess.run(
        [sys.executable, "-c", EPOCH, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory as Linux counts it")
def test_ten_times_the_slices_need_no_more_memory(one_copy, tmp_path):
    small = peak(one_copy, tmp_path / "4", 4, cache_mib=16)
    large = peak(one_copy, tmp_path / "40", 40, cache_mib=16)
    assert large < 1.1 * small
    # the measure sees what is kept: 40 copies are 252 MiB decoded
    assert peak(one_copy, tmp_path / "kept", 40, cache_mib=1000) > 1.3 * small

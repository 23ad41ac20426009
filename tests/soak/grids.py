"""Scans on random grids: what is cut into slices and put together again lies where it lay."""

from pathlib import Path

import numpy as np

from pipeline.imaging import label_volumes, volumes
from pipeline.imaging.geometry import restore_labels, to_slices
from tests.pipeline.grids import ENDINGS, random_grid, write_scan
from tests.soak.outcome import Outcome


def keep_grids(folder: Path, count: int, first_seed: int = 0) -> Outcome:
    """Write scans of every format on `count` random grids, and their label maps."""
    failures = []
    for seed in range(first_seed, first_seed + count):
        random = np.random.default_rng(seed)
        _, affine = random_grid(random)
        array = random.integers(0, 9, random.integers(2, 9, 3)).astype(np.uint8)
        ending = ENDINGS[seed % len(ENDINGS)]
        path = write_scan(folder / f"scan{ending}", array, affine)
        source = volumes.read(path)
        # any of the 48 whole-axis orders
        axes = "".join(random.choice(list(pair)) for pair in random.permutation(["LR", "PA", "IS"]))
        slices = to_slices(source.array, source.geometry, axes)
        target = folder / f"labels{label_volumes.format_for(path)}"
        restored = restore_labels(slices, source.geometry, axes)
        label_volumes.write_labels(target, restored, source.geometry, path)
        found = volumes.read(target)
        if not np.array_equal(found.array, array):
            failures.append(f"grid {seed} in {ending}: the labels moved")
        elif not np.array_equal(found.affine, source.affine):
            failures.append(f"grid {seed} in {ending}: another grid")
        elif not np.allclose(source.affine, affine, atol=1e-4):
            failures.append(f"grid {seed} in {ending}: read wrongly")
    return Outcome("random grids, labels and geometry kept", count, tuple(failures))

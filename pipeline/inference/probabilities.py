"""Class probabilities of a volume as NIfTI on the grid of the source, collected on disk."""

import gzip
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline.core.files import atomic_path
from pipeline.core.writable import naming_unwritable
from pipeline.imaging import volumes
from pipeline.imaging.geometry import Geometry, restore_labels
from pipeline.inference.volume import STEPS, Batch


class Probabilities:
    """Collects probabilities batch by batch; `open_probabilities` makes one.

    Args:
        store: (classes, slices, rows, columns), to be filled.
        geometry: of the source.
        axes: of the slices.
    """

    def __init__(self, store: NDArray[np.uint8], geometry: Geometry, axes: str) -> None:
        self._store, self._geometry, self._axes = store, geometry, axes

    def add(self, batch: Batch) -> None:
        """Store the probabilities of a batch of slices; they must be there."""
        assert batch.probabilities is not None, "predict_batches was asked for them"
        self._store[:, batch.first : batch.first + len(batch)] = batch.probabilities

    def write(self, path: Path) -> None:
        """Write (x, y, z, class) as compressed NIfTI, scaled by its slope to [0, 1].

        Class by class, so that one class is in memory at a time.
        """
        header = nib.Nifti1Header()
        header.set_data_dtype(np.uint8)
        header.set_data_shape((*self._geometry.shape, len(self._store)))
        header.set_slope_inter(1 / STEPS, 0)
        header.set_xyzt_units("mm")
        volumes.set_grid(header, self._geometry.affine)
        # after the header come four bytes that say that there is no extension
        header["vox_offset"] = header.sizeof_hdr + 4
        start = header.binaryblock + bytes(4)
        with atomic_path(path) as temporary, gzip.open(temporary, "wb", compresslevel=3) as file:
            file.write(start)
            for index in range(len(self._store)):
                volume = restore_labels(self._store[index], self._geometry, self._axes)
                for plane in np.moveaxis(volume, 2, 0):
                    file.write(plane.tobytes(order="F"))


@contextmanager
def open_probabilities(
    path: Path, classes: int, shape: tuple[int, int, int], geometry: Geometry, axes: str
) -> Iterator[Probabilities]:
    """Context that collects the probabilities of a volume and writes them at its end.

    Nothing is written when the block ends with an error.

    Args:
        path: ends in .nii.gz; its folder is made.
        classes: number of classes, the background included.
        shape: (slices, rows, columns) of the prepared slices.
        geometry: of the source.
        axes: of the slices.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent) as store:
        with naming_unwritable(path):
            _reserve(store, classes * math.prod(shape))
        array = np.memmap(store, np.uint8, "r+", shape=(classes, *shape))
        collected = Probabilities(array, geometry, axes)
        yield collected
        collected.write(path)


def _reserve(file: IO[bytes], size: int) -> None:
    """Take up the file's room: a mapped page without any kills the process instead of an error."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)

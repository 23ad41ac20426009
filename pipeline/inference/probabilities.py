"""Probabilities of every class on the source's grid, kept on the disk while they are made."""

import gzip
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.core.files import atomic_path
from pipeline.imaging import volumes
from pipeline.imaging.geometry import Geometry, restore_labels

STEPS = 255  # a probability is stored in steps of 1 / 255


class Probabilities:
    """Fills a file slice by slice; see `open_probabilities`."""

    def __init__(self, store: NDArray[np.uint8], geometry: Geometry) -> None:
        self._store, self._geometry = store, geometry

    def add(self, index: int, logits: Tensor) -> None:
        """Take in the logits (C, rows, columns) of a slice."""
        shares = logits.float().softmax(0).mul(STEPS).round()
        self._store[:, index] = shares.to("cpu").numpy().astype(np.uint8)

    def write(self, path: Path) -> None:
        """Write (x, y, z, class) as NIfTI, class by class; its values read as 0 to 1."""
        header = nib.Nifti1Header()
        header.set_data_dtype(np.uint8)
        header.set_data_shape((*self._geometry.shape, len(self._store)))
        header.set_slope_inter(1 / STEPS, 0)
        header.set_xyzt_units("mm")
        volumes.set_grid(header, self._geometry.affine)
        # the header, and four bytes that say that no extension follows
        header["vox_offset"] = header.sizeof_hdr + 4
        start = header.binaryblock + bytes(4)
        with atomic_path(path) as temporary, gzip.open(temporary, "wb", compresslevel=3) as file:
            file.write(start)
            for index in range(len(self._store)):
                part = restore_labels(self._store[index], self._geometry)
                for plane in np.moveaxis(part, 2, 0):
                    file.write(plane.tobytes(order="F"))


@contextmanager
def open_probabilities(
    path: Path, classes: int, shape: tuple[int, int, int], geometry: Geometry
) -> Iterator[Probabilities]:
    """Collect the probabilities of a volume; the file appears when the block ends without error.

    Args:
        path: ends in .nii.gz; its folder is made.
        classes: background included.
        shape: (slices, rows, columns) of the prepared slices.
        geometry: of the source.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent) as store:
        found = Probabilities(np.memmap(store, np.uint8, "w+", shape=(classes, *shape)), geometry)
        yield found
        found.write(path)

"""Slices of a scan, brought to a model as those of its training were."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging import intensity
from pipeline.imaging.geometry import resampled_size, slices_view
from pipeline.imaging.resize import resample_images
from pipeline.imaging.scan_intensity import Bounds
from pipeline.imaging.scans import Scan


@dataclass(frozen=True, eq=False)
class ScanSlices:
    """A scan's slices, prepared as the run's training slices were, each batch when it is asked for.

    Attributes:
        scan: in the axes of its file.
        bounds: intensities that become 0 and 1.
        axes: of the slices.
        spacing_mm: in-plane spacing that the run's slices were resampled to, or None.
    """

    scan: Scan
    bounds: Bounds
    axes: str
    spacing_mm: float | None

    @property
    def shape(self) -> tuple[int, ...]:
        """(slices, rows, columns), or (slices, C, rows, columns) of several channels."""
        slices, *plane = self.grid
        channels = self.scan.volume.channels
        return (slices, channels, *plane) if channels > 1 else self.grid

    @property
    def grid(self) -> tuple[int, int, int]:
        """Slices, rows and columns of the prepared scan."""
        geometry = self.scan.volume.geometry
        size = resampled_size(geometry, self.axes, self.spacing_mm)
        return (geometry.sliced_shape(self.axes)[0], *size)

    @property
    def pixel_spacing(self) -> tuple[float, float, float]:
        """Voxel sides along slice, row and column of the prepared slices, mm."""
        geometry = self.scan.volume.geometry
        old_sides = geometry.sliced_spacing(self.axes), geometry.sliced_shape(self.axes)
        sides = zip(*old_sides, self.grid, strict=True)
        slices, rows, columns = (mm * old / new for mm, old, new in sides)
        return slices, rows, columns

    def __getitem__(self, index: slice) -> NDArray[np.float32]:
        """B slices (B, rows, columns) or (B, C, rows, columns) in [0, 1]; the steps and their order
        are prepare's.
        """
        volume = self.scan.volume
        part = slices_view(volume.array, volume.geometry, self.axes)[index]
        if self.spacing_mm is not None:
            part = resample_images(part, self.grid[1:])
        low, high = self.bounds.low, self.bounds.high
        return intensity.to_unit(intensity.clip(part, low, high), low, high)

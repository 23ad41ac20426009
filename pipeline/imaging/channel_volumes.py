"""Reading the channels of a scan as one volume."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.core.errors import UserError
from pipeline.imaging import volumes
from pipeline.imaging.channels import ChannelFile, each
from pipeline.imaging.grids import grid_difference
from pipeline.imaging.volumes import Volume


def read(found: Sequence[ChannelFile]) -> Volume:
    """Read the channels of a scan, (x, y, z, C) in their order; (x, y, z) of a single one.

    Raises:
        UserError: as `volumes.read`; channels on different grids.
    """
    files: dict[Path, Volume] = {}
    for path in dict.fromkeys(channel.path for channel in found):
        places = [one.place for one in found if one.path == path and one.place is not None]
        files[path] = volumes.read(path, places=places or None)
    first_path, *paths = files
    first = files[first_path]
    for path in paths:
        if difference := grid_difference(first.geometry, files[path].geometry):
            raise UserError(
                f"{path}: expected the grid of {first_path}, another channel of the case, found "
                f"{difference}; resample it to that grid."
            )
    parts = [part for volume in files.values() for part in each(volume.array)]
    warnings = dict.fromkeys(warning for volume in files.values() for warning in volume.warnings)
    array = parts[0] if len(parts) == 1 else np.stack(parts, axis=-1)
    return replace(first, array=array, warnings=tuple(warnings))

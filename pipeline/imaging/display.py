"""How slices are shown to people, whatever the axes that a model sees them along.

Pictures follow the radiological display: axial slices with the front above and the patient's right
on the left, coronal ones with the head above and the right on the left, sagittal ones with the head
above and the front on the left.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

OPPOSITE = {"R": "L", "L": "R", "A": "P", "P": "A", "I": "S", "S": "I"}
# direction in which slices are stacked to those in which the rows and columns of a picture grow
_PICTURES = {"S": "PL", "I": "PL", "A": "IL", "P": "IL", "L": "IP", "R": "IP"}


def shown(slices: NDArray[Any], axes: str) -> NDArray[Any]:
    """Slices as pictures, a view.

    Args:
        slices: (..., rows, columns).
        axes: of the slices, as in `pipeline.imaging.geometry`.
    """
    if is_transposed(axes):
        slices = np.swapaxes(slices, -1, -2)
    for place, direction in enumerate(_PICTURES[axes[0]]):
        if direction not in axes:
            slices = np.flip(slices, place - 2)
    return slices


def shown_spacing(spacing_mm: tuple[float, float, float], axes: str) -> tuple[float, float, float]:
    """Voxel sides along slice, row and column -> along slice, row and column of the pictures."""
    slices, rows, columns = spacing_mm
    return (slices, columns, rows) if is_transposed(axes) else spacing_mm


def is_transposed(axes: str) -> bool:
    """Whether the rows of a picture are the columns of the slice."""
    rows = _PICTURES[axes[0]][0]
    return axes[1] not in (rows, OPPOSITE[rows])


def sides(axes: str) -> tuple[str, str]:
    """Letters for the left and the right edge of a picture: ("R", "L") for axial slices."""
    columns = _PICTURES[axes[0]][1]
    return OPPOSITE[columns], columns


def ends(axes: str) -> tuple[str, str]:
    """Letters for the upper and the lower edge of a picture: ("A", "P") for axial slices."""
    rows = _PICTURES[axes[0]][0]
    return OPPOSITE[rows], rows

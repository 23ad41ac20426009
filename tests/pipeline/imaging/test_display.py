import numpy as np
import pytest

from pipeline.imaging.display import OPPOSITE, shown, shown_spacing, sides
from pipeline.imaging.geometry import to_slices
from tests.pipeline.imaging.test_geometry import ORIENTATIONS, geometry

# direction in which slices are stacked to the axes of the radiological display
DISPLAYS = {"S": "SPL", "I": "IPL", "A": "AIL", "P": "PIL", "L": "LIP", "R": "RIP"}


@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_pictures_look_the_same_whatever_the_axes(axes):
    grid = geometry("LAS")
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    display = DISPLAYS[axes[0]]
    pictures = shown(to_slices(array, grid, axes), axes)
    assert np.array_equal(pictures, to_slices(array, grid, display))
    assert shown_spacing(grid.sliced_spacing(axes), axes) == grid.sliced_spacing(display)
    assert sides(axes) == (OPPOSITE[display[2]], display[2])


def test_axial_pictures_have_the_patients_right_on_the_left():
    assert sides("SAL") == sides("IRP") == ("R", "L")
    plane = np.arange(6).reshape(2, 3)
    assert np.array_equal(shown(plane, "SPL"), plane)
    assert np.array_equal(shown(plane, "SAL"), plane[::-1])
    assert np.array_equal(shown(plane, "SLP"), plane.T)

import pytest

from pipeline.imaging.geometry import Geometry
from pipeline.imaging.grids import largest_distance
from tests.pipeline.conftest import AFFINE


def test_largest_distance_is_that_of_a_corner():
    tilted = AFFINE.copy()
    tilted[0, 2] += 0.1
    # the last of 30 slices is 29 steps away
    grids = Geometry((10, 20, 30), AFFINE), Geometry((10, 20, 30), tilted)
    assert largest_distance(*grids) == pytest.approx(2.9)

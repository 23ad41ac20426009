import numpy as np
import pytest
from scipy.spatial.distance import cdist

from pipeline.scoring import measures
from tests.pipeline.masks import SPACING, blob, brute_surface


def distances(a: np.ndarray, b: np.ndarray, spacing) -> tuple[np.ndarray, np.ndarray]:
    return measures.point_distances(*measures.surface_points(a, b), spacing)


@pytest.mark.parametrize("seed", range(6))
def test_distances_equal_brute_force(seed):
    a, b = blob(seed), blob(seed + 100)
    np.testing.assert_array_equal(measures.surface(a), brute_surface(a))
    for spacing in (SPACING, (1, 1, 1)):
        points = (np.argwhere(brute_surface(mask)) * np.asarray(spacing) for mask in (a, b))
        table = cdist(*points)
        to_b, to_a = distances(a, b, spacing)
        np.testing.assert_allclose(to_b, table.min(1), atol=1e-9)
        np.testing.assert_allclose(to_a, table.min(0), atol=1e-9)


def test_hand_made_distances():
    a, b = np.zeros((2, 1, 1, 9), bool)
    a[..., 1], b[..., 5] = True, True
    assert [part.tolist() for part in distances(a, b, (1, 1, 0.5))] == [[2], [2]]
    assert [part.tolist() for part in distances(a, a | b, (1, 1, 2))] == [[0], [0, 8]]


def test_the_array_border_counts_as_outside():
    assert measures.surface(np.ones((3, 3, 3), bool)).sum() == 26


def test_distances_refuse_an_empty_mask():
    with pytest.raises(ValueError, match="empty"):
        measures.surface_points(np.zeros((2, 2), bool), np.ones((2, 2), bool))

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import cdist

from pipeline import metrics

SPACING = (3.0, 0.7, 1.1)


def blob(seed: int, shape=(11, 30, 26), level=0.9) -> np.ndarray:
    """A smooth, organ-shaped mask that may touch the border."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    smooth = ndimage.gaussian_filter(noise, (1, 3, 3))
    return smooth > level * smooth.std()


def brute_surface(mask: np.ndarray) -> np.ndarray:
    """Voxels with one of their six neighbours outside the mask or the array."""
    padded = np.pad(mask, 1)
    inside = np.ones_like(mask)
    for axis in range(mask.ndim):
        for step in (-1, 1):
            inside &= np.roll(padded, step, axis)[(slice(1, -1),) * mask.ndim]
    return mask & ~inside


def brute_hd95(a: np.ndarray, b: np.ndarray, spacing) -> float:
    table = cdist(*(np.argwhere(brute_surface(mask)) * np.asarray(spacing) for mask in (a, b)))
    return np.percentile(np.concatenate([table.min(1), table.min(0)]), 95)


def edt_hd95(a: np.ndarray, b: np.ndarray, spacing) -> float:
    """MedPy's own way, with SciPy alone."""
    a, b = brute_surface(a), brute_surface(b)
    to_b = ndimage.distance_transform_edt(~b, sampling=spacing)[a]
    to_a = ndimage.distance_transform_edt(~a, sampling=spacing)[b]
    return np.percentile(np.hstack((to_b, to_a)), 95)


@pytest.mark.parametrize("seed", range(12))
def test_hd95_of_organ_shapes_equals_brute_force(seed):
    a, b = blob(seed), blob(seed + 100)
    for spacing in (SPACING, (1, 1, 1)):
        value = metrics.hd95(a, b, spacing)
        assert value == pytest.approx(brute_hd95(a, b, spacing), abs=1e-6)
        assert value == pytest.approx(edt_hd95(a, b, spacing), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.99), st.tuples(*[st.integers(1, 7)] * 3))
def test_hd95_and_dice_of_random_masks_equal_brute_force(seed, share, shape):
    a, b = np.random.default_rng(seed).random((2, *shape)) < share
    found = metrics.measure(a, b, SPACING)
    if a.any() and b.any():
        assert found.hd95_mm == pytest.approx(brute_hd95(a, b, SPACING), abs=1e-6)
        assert found.hd95_voxels == pytest.approx(brute_hd95(a, b, (1, 1, 1)), abs=1e-6)
    else:
        assert math.isnan(found.hd95_mm) and math.isnan(found.hd95_voxels)
    if a.any() or b.any():
        assert metrics.dice(a, b) == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    else:
        assert math.isnan(metrics.dice(a, b))


def test_numbers_that_medpy_gives():
    # medpy.metric.binary.dc and hd95 of MedPy 0.5.2 on these very masks
    a, b = blob(1), blob(2, level=0.7)
    assert metrics.dice(a, b) == pytest.approx(0.13976377952755906, abs=1e-12)
    assert metrics.hd95(a, b, (1, 1, 1)) == pytest.approx(5.385164807134504, abs=1e-9)
    assert metrics.hd95(a, b, SPACING) == pytest.approx(7.0, abs=1e-9)


def test_hand_made_distances():
    a, b = np.zeros((2, 1, 1, 9), bool)
    a[..., 1], b[..., 5] = True, True
    assert metrics.hd95(a, b, (1, 1, 0.5)) == 2.0
    to_b, to_a = metrics.surface_distances(a, a | b, (1, 1, 2))
    assert to_b.tolist() == [0] and to_a.tolist() == [0, 8]
    # pooled [0, 0, 8]: position 1.9 of 0..2
    assert metrics.hd95(a, a | b, (1, 1, 2)) == pytest.approx(7.2)


def test_surface_counts_the_array_border_as_outside():
    assert metrics.surface(np.ones((3, 3, 3), bool)).sum() == 26


def test_distances_refuse_an_empty_mask():
    with pytest.raises(ValueError, match="empty"):
        metrics.hd95(np.zeros((2, 2), bool), np.ones((2, 2), bool), (1, 1))


def test_labels_are_measured_as_if_one_by_one():
    truth, prediction = np.zeros((2, 11, 30, 26), np.uint8)
    for label in (3, 2, 1):
        truth[blob(label)] = label
        prediction[blob(label + 10)] = label
    prediction[prediction == 3] = 0
    found = metrics.measure_labels(truth, prediction, range(1, 6), SPACING)
    assert list(found) == [1, 2, 3, 4, 5]
    for label, value in found.items():
        alone = metrics.measure(truth == label, prediction == label, SPACING)
        # the cut-out must change nothing; repr makes NaN equal NaN
        assert repr(value) == repr(alone)
    assert (found[3].predicted_voxels, found[4].truth_voxels) == (0, 0)


@pytest.mark.parametrize(
    "truth, prediction, spacing, named",
    [((2, 3), (2, 4), (1, 1), r"\(2, 4\)"), ((2, 3), (2, 3), (1, 1, 1), "expected 2")],
)
def test_measures_refuse_what_does_not_fit(truth, prediction, spacing, named):
    with pytest.raises(ValueError, match=named):
        metrics.measure_labels(np.zeros(truth, int), np.zeros(prediction, int), [1], spacing)


EMPTY = np.zeros((4, 6, 8), bool)
BOX = EMPTY.copy()
BOX[1:3, 2:4, 2:4] = True
SHIFTED = np.roll(BOX, 1, axis=2)
DIAGONAL_VOXELS = math.sqrt(16 + 36 + 64)
DIAGONAL_MM = math.sqrt(12**2 + 4.2**2 + 8.8**2)


@pytest.mark.parametrize(
    "convention, truth, prediction, expected",
    [
        ("paper", BOX, SHIFTED, (0.5, 1.0, 1.1)),
        ("paper", BOX, EMPTY, (0, 0, 0)),
        ("paper", EMPTY, BOX, (1, 0, 0)),
        ("paper", EMPTY, EMPTY, (0, 0, 0)),
        ("strict", BOX, SHIFTED, (0.5, 1.0, 1.1)),
        ("strict", BOX, EMPTY, (0, DIAGONAL_VOXELS, DIAGONAL_MM)),
        ("strict", EMPTY, BOX, (0, math.nan, math.nan)),
        ("strict", EMPTY, EMPTY, (math.nan, math.nan, math.nan)),
    ],
)
def test_conventions(convention, truth, prediction, expected):
    score = metrics.apply_convention(metrics.measure(truth, prediction, SPACING), convention)
    found = (score.dice, score.hd95_voxels, score.hd95_mm)
    assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_unknown_convention():
    with pytest.raises(ValueError, match="'medpy'"):
        metrics.apply_convention(metrics.measure(BOX, BOX, SPACING), "medpy")


def test_mean_and_spread_leave_out_what_is_nan():
    assert metrics.mean([1, math.nan, 2]) == 1.5
    assert math.isnan(metrics.mean([math.nan]))
    assert metrics.spread([1, 3, math.nan]) == pytest.approx(math.sqrt(2))
    assert math.isnan(metrics.spread([1, math.nan]))

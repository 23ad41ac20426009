import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from medpy.metric import binary
from monai.metrics import compute_average_surface_distance, compute_surface_dice

from pipeline.scoring.measures import measure, measure_organs
from pipeline.scoring.scores import SCORES
from tests.pipeline.masks import BOX, EMPTY, SHIFTED, SPACING, blob

SPACINGS = [SPACING, (0.8, 0.8, 5.0), (1.0, 1.0, 1.0)]


def against_medpy(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> None:
    """Dice, IoU, HD, HD95 and ASSD are those of MedPy."""
    scores = measure(a, b, spacing).scores
    assert scores["dice"] == pytest.approx(binary.dc(b, a), abs=1e-6)
    assert scores["iou"] == pytest.approx(binary.jc(b, a), abs=1e-6)
    assert scores["hd95_voxels"] == pytest.approx(binary.hd95(b, a), abs=1e-6)
    assert scores["hd95_mm"] == pytest.approx(binary.hd95(b, a, voxelspacing=spacing), abs=1e-6)
    assert scores["hd_voxels"] == pytest.approx(binary.hd(b, a), abs=1e-6)
    assert scores["hd_mm"] == pytest.approx(binary.hd(b, a, voxelspacing=spacing), abs=1e-6)
    assert scores["assd_mm"] == pytest.approx(binary.assd(b, a, voxelspacing=spacing), abs=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(8))
def test_organ_shapes_measure_as_in_medpy(seed, spacing):
    against_medpy(blob(seed), blob(seed + 100), spacing)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 0.99), st.tuples(*[st.integers(1, 7)] * 3))
def test_random_masks_measure_as_in_medpy(seed, share, shape):
    a, b = np.random.default_rng(seed).random((2, *shape)) < share
    if a.any() and b.any():
        against_medpy(a, b, SPACING)
    else:
        scores = measure(a, b, SPACING).scores
        undefined = ("hd95_mm", "hd_voxels", "assd_mm", "nsd_1mm")
        assert all(math.isnan(scores[name]) for name in undefined)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(4))
def test_assd_and_nsd_are_those_of_monai(seed, spacing):
    a, b = blob(seed), blob(seed + 100)
    found = measure(a, b, spacing)
    y, y_pred = (torch.from_numpy(mask)[None, None].float() for mask in (a, b))
    common = {"include_background": True, "spacing": list(spacing)}
    assd = compute_average_surface_distance(y_pred, y, symmetric=True, **common)
    assert found.scores["assd_mm"] == pytest.approx(assd.item(), rel=1e-5)
    for limit in (1, 2, 3):
        nsd = compute_surface_dice(y_pred, y, class_thresholds=[float(limit)], **common)
        assert found.scores[f"nsd_{limit}mm"] == pytest.approx(nsd.item(), abs=1e-5)


def test_numbers_that_medpy_gives():
    # medpy.metric.binary.hd95 of MedPy 0.5.2 on these very masks
    found = measure(blob(1), blob(2, level=0.7), SPACING)
    assert found.scores["hd95_voxels"] == pytest.approx(5.385164807134504, abs=1e-9)
    assert found.scores["hd95_mm"] == pytest.approx(7.0, abs=1e-9)


def test_hand_made():
    found = measure(BOX, SHIFTED, SPACING)
    assert (found.truth_voxels, found.predicted_voxels, found.shared_voxels) == (8, 8, 4)
    # every voxel is surface; half of each mask's are 1 voxel, 1.1 mm, from the other mask
    assert (found.scores["hd_voxels"], found.scores["hd_mm"]) == (1.0, pytest.approx(1.1))
    assert found.scores["assd_mm"] == pytest.approx(0.55)
    assert [found.scores[f"nsd_{limit}mm"] for limit in (1, 2, 3)] == [0.5, 1.0, 1.0]
    assert found.voxel_ml == pytest.approx(0.00231)
    assert found.diagonal_mm == pytest.approx(math.sqrt(12**2 + 4.2**2 + 8.8**2))


def test_the_percentile_is_of_both_directions_pooled():
    a, b = np.zeros((2, 1, 1, 9), bool)
    a[..., 1], b[..., 5] = True, True
    # distances 0, 0 and 8: position 1.9 of 0 to 2
    assert measure(a, a | b, (1, 1, 2)).scores["hd95_mm"] == pytest.approx(7.2)


def test_a_distance_equal_to_the_tolerance_is_within_it():
    found = measure(BOX, np.roll(BOX, 2, axis=2), (1.0, 1.0, 0.5))
    assert found.scores["nsd_1mm"] == 1.0


def test_labels_are_measured_as_if_one_by_one():
    truth, prediction = np.zeros((2, 11, 30, 26), np.uint8)
    for label in (3, 2, 1):
        truth[blob(label)] = label
        prediction[blob(label + 10)] = label
    prediction[prediction == 3] = 0
    organs = {str(label): ((label,), (label,)) for label in range(1, 6)}
    found = measure_organs(truth, prediction, organs, SPACING)
    assert list(found) == ["1", "2", "3", "4", "5"]
    for name, value in found.items():
        alone = measure(truth == int(name), prediction == int(name), SPACING)
        # the cut-out must change nothing; repr makes NaN equal NaN
        assert repr(value) == repr(alone)
    assert (found["3"].predicted_voxels, found["4"].truth_voxels) == (0, 0)


def test_organs_of_several_labels_that_differ_between_the_two():
    truth, prediction = np.random.default_rng(0).integers(0, 5, (2, 4, 5, 6))
    organs = {"both": ((1, 2), (4,)), "one": ((2,), (1, 3))}
    found = measure_organs(truth, prediction, organs, SPACING)
    for name, pair in organs.items():
        masks = (np.isin(v, values) for v, values in zip((truth, prediction), pair, strict=True))
        assert found[name] == measure(*masks, SPACING)


@pytest.mark.parametrize(
    "truth, prediction, spacing, named",
    [((2, 3), (2, 4), (1, 1), r"\(2, 4\)"), ((2, 3), (2, 3), (1, 1, 1), "expected 2")],
)
def test_measures_refuse_what_does_not_fit(truth, prediction, spacing, named):
    with pytest.raises(ValueError, match=named):
        measure_organs(np.zeros(truth, int), np.zeros(prediction, int), {}, spacing)


def test_an_empty_pair_has_sizes_alone():
    found = measure(EMPTY, EMPTY, SPACING)
    assert (found.truth_voxels, found.predicted_voxels, found.shared_voxels) == (0, 0, 0)
    sizes = {name for name, score in SCORES.items() if score.kind == "size"}
    assert {name for name, value in found.scores.items() if not math.isnan(value)} == sizes

import math
from typing import get_args

import pytest

from pipeline.core.params.blocks import Evaluate
from pipeline.scoring.conventions import CONVENTIONS, apply_convention
from pipeline.scoring.measures import measure
from pipeline.scoring.scores import SCORES
from tests.pipeline.masks import BOX, EMPTY, SHIFTED, SPACING

NAN = math.nan
DIAGONAL_VOXELS = math.sqrt(16 + 36 + 64)
DIAGONAL_MM = math.sqrt(12**2 + 4.2**2 + 8.8**2)
DIAGONAL = "diagonal"


@pytest.mark.parametrize(
    "convention, truth, prediction, share, distance",
    [
        ("paper", BOX, EMPTY, 0, 0),
        ("paper", EMPTY, BOX, 1, 0),
        ("paper", EMPTY, EMPTY, 0, 0),
        ("strict", BOX, EMPTY, 0, DIAGONAL),
        ("strict", EMPTY, BOX, 0, NAN),
        ("strict", EMPTY, EMPTY, NAN, NAN),
        ("nnunet", BOX, EMPTY, 0, NAN),
        ("nnunet", EMPTY, BOX, 0, NAN),
        ("nnunet", EMPTY, EMPTY, NAN, NAN),
        ("both_empty_one", BOX, EMPTY, 0, NAN),
        ("both_empty_one", EMPTY, BOX, 0, NAN),
        ("both_empty_one", EMPTY, EMPTY, 1, 0),
    ],
)
def test_empty_pairs(convention, truth, prediction, share, distance):
    scores = apply_convention(measure(truth, prediction, SPACING), convention)
    assert list(scores) == list(SCORES)
    for name, score in SCORES.items():
        if score.kind == "overlap":
            assert scores[name] == pytest.approx(share, nan_ok=True)
        if score.kind == "distance":
            diagonal = DIAGONAL_MM if name.endswith("_mm") else DIAGONAL_VOXELS
            expected = diagonal if distance == DIAGONAL else distance
            assert scores[name] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_all_agree_where_both_masks_have_a_voxel(convention):
    scores = apply_convention(measure(BOX, SHIFTED, SPACING), convention)
    assert scores == pytest.approx(
        {
            "dice": 0.5,
            "iou": 4 / 12,
            "hd95_voxels": 1.0,
            "hd95_mm": 1.1,
            "hd_voxels": 1.0,
            "hd_mm": 1.1,
            "assd_mm": 0.55,
            "nsd_1mm": 0.5,
            "nsd_2mm": 1.0,
            "nsd_3mm": 1.0,
            "volume_difference_ml": 0.0,
        }
    )


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_volume_difference_has_a_sign_and_goes_with_dice(convention):
    voxels_ml = 8 * 3.0 * 0.7 * 1.1 / 1000
    missed, invented, absent = (
        apply_convention(measure(*pair, SPACING), convention)
        for pair in ((BOX, EMPTY), (EMPTY, BOX), (EMPTY, EMPTY))
    )
    assert missed["volume_difference_ml"] == pytest.approx(-voxels_ml)
    assert invented["volume_difference_ml"] == pytest.approx(voxels_ml)
    assert math.isnan(absent["volume_difference_ml"]) == math.isnan(absent["dice"])


def test_unknown_convention():
    with pytest.raises(ValueError, match="'medpy'"):
        apply_convention(measure(BOX, BOX, SPACING), "medpy")


def test_the_parameter_names_them_all():
    assert get_args(Evaluate.model_fields["convention"].annotation) == tuple(CONVENTIONS)

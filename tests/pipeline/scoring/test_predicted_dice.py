import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.scoring import predicted_dice
from pipeline.scoring.predicted_dice import (
    FEWEST,
    LEVEL,
    OWN,
    Calibration,
    Pair,
    applied,
    calibrate,
    judged,
    left_out,
    quantile,
)
from pipeline.scoring.uncertainty import Signs

ORGANS = ("liver", "pancreas")


def expit(value):
    return 1 / (1 + np.exp(-value))


def made_up(cases: int, seed: int, *, stages: bool = True, noise: float = 0.4) -> list[Pair]:
    """Exchangeable cases whose logit(Dice) is a line in that of the signs, with noise."""
    random = np.random.default_rng(seed)
    pairs = []
    for case in range(cases):
        shared = random.normal(0, noise)  # errors of one case go together
        for organ, offset in zip(ORGANS, (0.5, -0.5), strict=True):
            expected, agreement = random.normal(1.5, 0.8, 2)
            place = 0.7 * expected + (0.4 * agreement if stages else 0) + offset
            dice = expit(place + shared + random.normal(0, noise))
            signs = Signs(float(expit(expected)), float(expit(agreement)) if stages else None)
            pairs.append(Pair(f"case{case}", organ, signs, float(dice)))
    return pairs


@pytest.mark.parametrize("stages", [True, False])
def test_a_line_without_noise_is_found(stages):
    pairs = made_up(200, 1, stages=stages, noise=0)
    calibration = calibrate(pairs)
    assert calibration.slopes["expected"] == pytest.approx(0.7, abs=0.05)
    assert ("agreement" in calibration.slopes) == stages
    inside = [pair for pair in pairs if 0.02 < pair.dice < 0.98]
    for pair, said in applied(calibration, inside):
        assert said.dice == pytest.approx(pair.dice, abs=0.05)


@pytest.mark.parametrize("cases", [FEWEST, 25, 60])
def test_intervals_hold_the_stated_share_of_new_cases(cases):
    held = [
        judged(applied(calibrate(made_up(cases, seed)), made_up(40, 1000 + seed)))["coverage"]
        for seed in range(40)
    ]
    assert LEVEL - 0.01 <= np.mean(held) <= 0.95


def test_less_doubt_never_means_a_lower_dice_and_the_interval_holds_the_prediction():
    # agreement that goes against the truth gets no weight
    pairs = [
        Pair(f"case{k}", "liver", Signs(0.5 + 0.02 * k, 0.9 - 0.03 * k), 0.4 + 0.025 * k)
        for k in range(20)
    ]
    calibration = calibrate(pairs)
    assert calibration.slopes["agreement"] == 0 < calibration.slopes["expected"]
    said = [calibration.predict("liver", Signs(share, 0.5)) for share in np.linspace(0, 1, 30)]
    assert said == sorted(said, key=lambda one: (one.dice, one.low, one.high))
    assert all(0 <= one.low <= one.dice <= one.high <= 1 for one in said)


def test_with_more_doubt_than_any_case_had_the_interval_begins_at_0():
    pairs = [
        Pair(f"case{k}", "liver", Signs(0.6 + 0.02 * k, 0.7), 0.7 + 0.02 * k + 0.01 * (k % 2))
        for k in range(12)
    ]
    calibration = calibrate(pairs)
    within, less, other = (
        calibration.predict("liver", Signs(*signs))
        for signs in ((0.6, 0.7), (0.59, 0.7), (0.8, 0.69))
    )
    assert within.low > 0.5 and less.low == other.low == 0.0
    assert less.dice < within.dice < other.dice < other.high


def test_of_labels_unlike_training_the_interval_begins_at_0():
    pairs = made_up(FEWEST, 7)
    calibration, signs = calibrate(pairs), Signs(0.9, 0.9)
    like, unlike = (calibration.predict("liver", signs, strange) for strange in (False, True))
    assert like.low > unlike.low == 0.0
    assert (like.dice, like.high) == (unlike.dice, unlike.high)
    strange = [replace(pair, unlike=pair.organ == "liver") for pair in pairs]
    assert calibrate(strange) == calibration
    assert {said.low for pair, said in applied(calibration, strange) if pair.unlike} == {0.0}


def test_few_cases_say_nothing():
    pairs = made_up(FEWEST, 2)
    assert calibrate(pairs) is not None
    assert calibrate(pairs[2:]) is None and left_out(pairs) == []
    assert judged([]) == {"pairs": 0}


def test_an_organ_that_no_case_had_is_not_predicted():
    calibration = calibrate(made_up(FEWEST, 3))
    assert calibration.predict("aorta", Signs(0.9, 0.9)) is None


def test_an_organ_with_many_cases_has_its_own_interval():
    few, many = (calibrate(made_up(cases, 4)) for cases in (OWN - 1, OWN))
    assert few.widths["liver"] == few.widths["pancreas"]
    assert many.widths["liver"] != many.widths["pancreas"]


def test_each_case_is_left_out_of_what_judges_it():
    pairs = made_up(FEWEST + 1, 5)
    others = [pair for pair in pairs if pair.case != "case3"]
    own = [pair for pair in pairs if pair.case == "case3"]
    found = dict((pair.organ, said) for pair, said in left_out(pairs) if pair.case == "case3")
    assert found == {pair.organ: calibrate(others).predict(pair.organ, pair.signs) for pair in own}


def test_an_interval_reaches_to_the_end_where_a_dice_of_0_is_within():
    pairs = [Pair(f"case{k}", "liver", Signs(0.6, None), 0.0 if k < 3 else 0.6) for k in range(12)]
    said = calibrate(pairs).predict("liver", Signs(0.6, None))
    assert said.low == 0.0


def test_the_quantile_by_hand():
    distances = np.arange(20.0, 0.0, -1)
    assert quantile(distances) == 19  # the ceil(0.9 * 21) = 19th of 20
    assert quantile(distances[:9]) == 20 and math.isinf(quantile(distances[:8]))


def test_judged_by_hand():
    pair = made_up(1, 6)[0]
    said = [predicted_dice.Predicted(*v) for v in ((0.5, 0.4, 0.6), (0.7, 0.6, 0.8), (0.9, 0.8, 1))]
    true = (0.55, 0.9, 0.95)
    found = [(Pair("a", "liver", pair.signs, d), s) for d, s in zip(true, said, strict=True)]
    assert judged(found) == pytest.approx(
        {
            "pairs": 3,
            "mean_absolute_error": 0.1,
            "coverage": 2 / 3,
            "mean_width": 0.2,
            "spearman": 1.0,
        }
    )


def test_a_file_holds_all_of_a_calibration():
    calibration = calibrate(made_up(30, 7))
    assert Calibration.from_json(calibration.to_json()) == calibration
    for bad in ({}, {"slopes": 3}, calibration.to_json() | {"widths": {"liver": "wide"}}):
        with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
            Calibration.from_json(bad)


def test_pairs_of_one_and_of_two_stages_do_not_mix():
    mixed = made_up(FEWEST, 8) + made_up(1, 9, stages=False)
    with pytest.raises(ValueError, match="agreement"):
        calibrate(mixed)

import json

import pytest

from pipeline.core import files
from pipeline.scoring import calibration
from pipeline.scoring.calibration import CALIBRATION, Known, find, of_evaluation, sentence
from pipeline.scoring.predicted_dice import FEWEST, calibrate, left_out
from pipeline.scoring.uncertainty import Signs
from tests.pipeline.scoring.test_predicted_dice import made_up


def test_validation_cases_calibrate_where_there_are_enough():
    validation, test = made_up(FEWEST, 1), made_up(3, 2)
    known, found, about = of_evaluation(validation, test)
    assert known == Known(calibrate(validation), f"{FEWEST} validation cases")
    assert [pair for pair, _ in found] == test
    assert about["calibrated_on"] == known.source and about["pairs"] == len(test)
    assert f"calibrated on {FEWEST} validation cases; over 6 pairs" in sentence(about)


def test_test_cases_calibrate_otherwise_and_are_judged_without_themselves():
    test = made_up(FEWEST + 2, 3)
    known, found, about = of_evaluation([], test)
    assert known == Known(calibrate(test), f"{FEWEST + 2} test cases")
    assert found == left_out(test) and len(found) == len(test)
    assert about["calibrated_on"] == known.source
    # one case fewer than FEWEST is left to judge each by
    assert "too few to judge" in sentence(of_evaluation([], made_up(FEWEST, 3))[2])


def test_few_cases_of_either_can_not_say():
    known, found, about = of_evaluation([], made_up(FEWEST - 1, 4))
    assert known.calibration is None and found == []
    assert "split.validation" in about["cannot_say"] and "are 9" in about["cannot_say"]
    assert sentence(about) == f"cannot say: {about['cannot_say']}"
    assert known.of_scan(["liver"], [Signs(0.9, 0.9)]) == about


def test_a_scan_gets_a_dice_for_what_was_found_and_a_reason_for_the_rest():
    known = Known(calibrate(made_up(FEWEST, 5)), "10 test cases")
    organs = ["liver", "pancreas", "aorta"]
    record = known.of_scan(organs, [Signs(0.9, 0.9), None, Signs(0.9, 0.9)])
    assert record["level"] == 0.9 and record["calibrated_on"] == "10 test cases"
    liver = record["organs"]["liver"]
    assert 0 <= liver["low"] <= liver["dice"] <= liver["high"] <= 1
    assert record["organs"]["pancreas"] == {"cannot_say": "not found"}
    assert "no case" in record["organs"]["aorta"]["cannot_say"]
    signs = [Signs(0.9, 0.9), Signs(0.9, 0.9)]
    strange = known.of_scan(organs[:2], signs, {"pancreas"})["organs"]
    assert strange["liver"] == liver and strange["liver"]["low"] > strange["pancreas"]["low"] == 0
    json.dumps(record, allow_nan=False)


def test_a_models_calibration_is_found_by_its_weights(tmp_path):
    known = Known(calibrate(made_up(FEWEST, 6)), "10 test cases")
    other, own = tmp_path / "other", tmp_path / "own"
    calibration.write(other / CALIBRATION, Known(None, "too few"), "mean", "b" * 64)
    calibration.write(own / CALIBRATION, known, "mean", "a" * 64)
    assert find([tmp_path, other, own], "a" * 64, "mean") == known
    assert find([other, own], "b" * 64, "mean") == Known(None, "too few")
    assert "coarse" in find([own], "a" * 64, "coarse").source
    assert "hsam evaluate" in find([other], "a" * 64, "mean").source


@pytest.mark.parametrize("content", ["", "{", "[]", '{"weights": 3}', '{"weights": "a", "stage":'])
def test_a_damaged_file_says_nothing(tmp_path, content):
    (tmp_path / CALIBRATION).write_text(content)
    assert find([tmp_path], "a", "mean").calibration is None


def test_a_calibration_of_other_signs_of_doubt_says_nothing(tmp_path):
    known = Known(calibrate(made_up(FEWEST, 1)), "10 test cases")
    calibration.write(tmp_path / CALIBRATION, known, "mean", "a")
    assert find([tmp_path], "a", "mean").calibration is not None
    content = files.read_json(tmp_path / CALIBRATION)
    del content["faint"]
    files.write_json(tmp_path / CALIBRATION, content)
    assert find([tmp_path], "a", "mean").calibration is None

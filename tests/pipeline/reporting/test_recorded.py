"""What stages of earlier versions have recorded is read as this version would have recorded it."""

import pytest

from pipeline.core.params.load import load
from pipeline.reporting.recorded import recorded_params, searched_space

OLD = {
    "stage": "search",
    "params": {
        "search": {
            "seed": None,
            "trials": 7,
            "epochs": 3,
            "lora_rank": [2, 4],
            "dice_weight": [0.6, 0.9],
            "lambda_start": None,
        }
    },
}


def test_an_earlier_versions_search_is_read():
    found = recorded_params(load([]), {"search": OLD}).search
    assert (found.trials, found.epochs, found.pruner, found.validate_every) == (7, 3, "none", 0)
    expected = {"lora_rank": [2, 4], "dice_weight": {"low": 0.6, "high": 0.9}}
    assert found.space == expected | {"lambda_start": None}
    assert searched_space(OLD) == expected


@pytest.mark.parametrize("record", [{}, {"stage": "search", "params": {}}])
def test_a_search_that_recorded_nothing_tried_nothing(record):
    assert searched_space(record) == {}
    assert recorded_params(load([]), {"search": record}) == load([])

import numpy as np
import pytest

from pipeline.core.params.blocks import Percentile, Window
from pipeline.imaging import intensity
from tests.pipeline.conftest import tiny_image

WINDOW = Window(kind="window", low=-125.0, high=275.0)
PERCENTILES = Percentile(kind="percentile", low=0.5, high=99.5)


@pytest.mark.parametrize("chosen", [WINDOW, PERCENTILES])
def test_a_rule_comes_back_from_its_record(chosen):
    assert intensity.rule(chosen.model_dump()) == chosen


def test_a_record_that_is_no_rule_is_refused():
    with pytest.raises(ValueError):
        intensity.rule({"kind": "window", "low": 0.0})


def test_a_window_is_the_same_for_every_volume():
    assert intensity.bounds(tiny_image(), WINDOW) == (-125, 275)


def test_percentiles_are_the_volumes_own():
    assert intensity.bounds(np.arange(1001), PERCENTILES) == (5, 995)


def test_the_bounds_become_0_and_1_and_nothing_lies_beyond():
    clipped = intensity.clip(np.array([[-1000, -125, 75, 275, 3000]], np.int16), -125, 275)
    assert intensity.to_unit(clipped, -125, 275).tolist() == [[0, 0, 0.5, 1, 1]]

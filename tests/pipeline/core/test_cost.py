"""What a stage cost, and how it is kept."""

import re

import pytest

from pipeline.core.cost import NAME, Cost


def test_what_is_measured_comes_back(tmp_path):
    cost = Cost.of(12.34567, "cpu")
    assert (cost.seconds, cost.device, cost.devices, cost.where) == (12.346, "CPU", 1, "CPU")
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", cost.date) and cost.peak_memory_mib > 10
    cost.write(tmp_path)
    assert Cost.read(tmp_path) == cost


def test_parts_in_turn_add_up_and_share_a_peak():
    parts = [Cost("2026-01-02", 2.0, "CPU", 1, 90), Cost("2026-01-01", 3.5, "CPU", 1, None)]
    assert Cost.in_turn(parts) == Cost("2026-01-02", 5.5, "CPU", 1, 90)


def test_several_devices_take_so_many_times_the_time():
    cost = Cost.parse({"seconds": 60, "device": "H100", "devices": 2})
    assert (cost.device_seconds, cost.where, cost.date) == (120, "2 × H100", None)


@pytest.mark.parametrize("text", [None, "{", "[]", '{"seconds": "x", "devices": 1}', "{}"])
def test_a_cost_that_cannot_be_read_is_none(tmp_path, text):
    if text is not None:
        (tmp_path / NAME).write_text(text)
    assert Cost.read(tmp_path) is None

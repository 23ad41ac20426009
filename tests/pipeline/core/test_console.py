import io

import pytest
from rich.console import Console

from pipeline.core import console

NOTE = "epoch 299  loss 0.8182  lr 1.45e-03  154.3 slices/s  validation Dice 0.812"


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_no_number_is_cut_off_on_a_narrow_terminal(monkeypatch, width):
    shown = io.StringIO()
    terminal = Console(file=shown, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(console, "console", terminal)
    with console.steps("train", 2100) as bar:
        bar.advance(NOTE, 1000)
    assert "1000/2100" in shown.getvalue()
    assert "…" not in shown.getvalue()
    assert set(NOTE.split()) <= set(shown.getvalue().split())


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 seconds"), (59, "59 seconds"), (90, "1.5 minutes"), (45000, "12.5 hours")],
)
def test_lengths_of_time_have_a_unit_that_suits_them(seconds, text):
    assert console.duration(seconds) == text

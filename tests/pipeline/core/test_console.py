import io
import re

import pytest
from rich.console import Console

from pipeline.core import console

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NOTES = ("epoch 299", "loss 0.8182", "Dice 0.812", "154.3 slices/s", "lr 1.45e-03")


@pytest.fixture
def shown(monkeypatch, request):
    """The last line of a training's bar on a terminal of so many columns, and the columns."""
    text = io.StringIO()
    terminal = Console(file=text, force_terminal=True, width=request.param, color_system=None)
    monkeypatch.setattr(console, "console", terminal)
    with console.steps("train", 2100) as bar:
        bar.advance(*NOTES, count=1000)
    # a bar of several lines would move the cursor up
    assert "\x1b[1A" not in text.getvalue()
    return re.split(r"[\r\n]", CONTROL.sub("", text.getvalue()).strip())[-1], request.param


@pytest.mark.parametrize("shown", [60, 80, 120, 200], indirect=True)
def test_a_bar_takes_one_line_and_no_number_is_cut_off(shown):
    line, width = shown
    assert len(line) <= width
    assert "1000/2100" in line
    assert "…" not in line
    assert line.startswith("  ".join(("train", *NOTES[:2])))


@pytest.mark.parametrize("shown", [80], indirect=True)
def test_80_columns_hold_loss_dice_and_speed(shown):
    line, _ = shown
    assert all(note in line for note in NOTES[:4])


@pytest.mark.parametrize("shown", [120], indirect=True)
def test_a_wide_terminal_shows_everything(shown):
    line, _ = shown
    assert all(note in line for note in NOTES)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 seconds"), (59, "59 seconds"), (90, "1.5 minutes"), (45000, "12.5 hours")],
)
def test_lengths_of_time_have_a_unit_that_suits_them(seconds, text):
    assert console.duration(seconds) == text

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


def test_a_terminal_shows_the_time_left_that_it_is_told(monkeypatch):
    text = io.StringIO()
    terminal = Console(file=text, force_terminal=True, width=120, color_system=None)
    monkeypatch.setattr(console, "console", terminal)
    with console.steps("train", 330) as bar:
        bar.advance("epoch 2", count=30, left=console.Left(4000.2, "3 validations"))
    line = re.split(r"[\r\n]", CONTROL.sub("", text.getvalue()).strip())[-1]
    assert line.startswith("train  epoch 2  without 3 validations ")
    assert line.endswith("1:06:40")


def test_a_log_file_tells_what_the_time_left_is_without_and_what_comes_next(capsys):
    with console.steps("train", 20, pause=60) as bar:
        bar.advance("epoch 0", count=5, left=console.Left(150, "1 validation"))
        bar.advance("epoch 0", count=5, left=console.Left(100, "1 validation"))
        bar.advance("validation", count=0, left=console.Left(100, "1 validation"), always=True)
        bar.advance("Dice 0.800", count=0, left=console.Left(130))
        bar.advance("epoch 1", count=10, left=console.Left(30))
        bar.advance("Dice 0.900", count=0, left=console.Left(0))
    assert capsys.readouterr().err.splitlines() == [
        "train 5/20  epoch 0  2:30 left without 1 validation",
        "train 10/20  validation  1:40 left without 1 validation",
        "train 20/20  Dice 0.900  0:00 left",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 second"),
        (1.6, "2 seconds"),
        (59, "59 seconds"),
        (90, "1.5 minutes"),
        (45000, "12.5 hours"),
    ],
)
def test_lengths_of_time_have_a_unit_that_suits_them(seconds, text):
    assert console.duration(seconds) == text

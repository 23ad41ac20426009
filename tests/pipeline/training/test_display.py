import torch

from pipeline.training import clock
from pipeline.training.batches import Step
from pipeline.training.display import Display
from pipeline.training.history import History
from tests.pipeline.training.test_clock import Time
from tests.pipeline.training.test_fit import settings


def shown(monkeypatch, folder, *, on_this_device=True) -> None:
    """Eight steps of a second each in two epochs, a validation of a minute after each."""
    time = Time()
    monkeypatch.setattr(clock, "time", time)
    history = History()
    measured = clock.Clock(checkpoint_minutes=5)
    time.now += 100  # until the training begins
    with Display(
        "train", history, measured, 8, 0, [1, 2], folder, settings(), shown=on_this_device
    ) as display:
        for number in range(8):
            time.now += 1
            ends = number % 4 == 3
            step = Step(number, number // 4, ends, torch.arange(16), ())
            history.add(step, [0.5, 0.6, 0.4], 1e-3, 0.4)
            display.advance([step], 1e-3)
            if ends:
                with display.validation():
                    time.now += 60
                    history.add_validation({"liver": 0.75})
            display.log()
            display.estimate()
            measured.start()
    display.end()


def test_a_log_file_shows_first_steps_estimate_validations_and_the_end(
    monkeypatch, tmp_path, capsys
):
    shown(monkeypatch, tmp_path)
    assert capsys.readouterr().err.splitlines() == [
        "train 1/8  epoch 0  loss 0.5000  16.0 slices/s  lr 1.00e-03  "
        "0:07 left without 2 validations",
        "train: about 5 seconds for the 5 steps that are left, and 2 validations",
        "train 4/8  epoch 0  validation  0:04 left without 2 validations",
        "train 8/8  epoch 1  validation  1:00 left",
        "train 8/8  epoch 1  loss 0.5000  Dice 0.750  16.0 slices/s  lr 1.00e-03  0:00 left",
    ]
    rows = (tmp_path / "dvclive/plots/metrics/validation/liver.tsv").read_text().splitlines()
    assert rows[1:] == ["0\t0.75", "1\t0.75"]
    assert (tmp_path / "progress.png").read_bytes()[:4] == b"\x89PNG"


def test_a_trial_shows_its_steps_alone(monkeypatch, tmp_path, capsys):
    shown(monkeypatch, None)
    told = capsys.readouterr().err
    assert told.startswith("train 1/8  epoch 0  loss") and "about" not in told


def test_other_devices_show_nothing(monkeypatch, tmp_path, capsys):
    shown(monkeypatch, tmp_path, on_this_device=False)
    assert capsys.readouterr().err == "" and not list(tmp_path.iterdir())

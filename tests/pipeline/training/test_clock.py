import torch

from pipeline.training import clock
from pipeline.training.batches import Step


class Time:
    """A clock of the computer that moves when told to."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


def step(number):
    return Step(number, 0, False, torch.arange(16), ())


def test_time_left_counts_validations_as_soon_as_one_is_measured(monkeypatch):
    time = Time()
    monkeypatch.setattr(clock, "time", time)
    measured = clock.Clock(checkpoint_minutes=5)
    time.now += 8
    measured.stop([step(0), step(1), step(2), step(3)])
    assert (measured.left(30, 3).seconds, measured.left(30, 3).without) == (60, "3 validations")
    assert measured.left(30, 1).without == "1 validation"
    assert measured.left(30, 0).without == ""
    assert measured.validates_long()  # nobody knows yet
    assert (measured.steps, measured.speed) == (4, 8)
    time.now += 50
    measured.validated()
    measured.start()
    time.now += 2
    measured.stop([step(4)])
    left = measured.left(29, 2)
    assert (left.seconds, left.without) == (29 * 2 + 2 * 50, "")
    assert measured.validates_long()
    time.now += 2
    measured.validated()
    measured.start()
    time.now += 2
    measured.stop([step(5)])
    time.now += 2
    measured.validated()
    assert measured.left(0, 1).seconds == 18
    assert measured.validates_long()

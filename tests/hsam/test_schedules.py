import pytest

from hsam.schedules import lr_factor, stage_weight


@pytest.mark.parametrize(
    ("epoch", "weight"),
    [(0, 0.4), (50, 0.26586), (100, 0.17054), (200, 0.06615), (299, 0.02499)],
)
def test_golden_weights(epoch, weight):
    assert stage_weight(epoch) == pytest.approx(weight, abs=5e-6)


@pytest.mark.parametrize("start", [0.0, 0.2, 0.6])
def test_start_is_the_first_weight(start):
    assert stage_weight(0, start=start) == pytest.approx(start)
    assert stage_weight(0, start=start, end_at_zero=True) == pytest.approx(start)


@pytest.mark.parametrize("epochs", [1, 2, 20, 300])
def test_end_at_zero_is_exact(epochs):
    assert stage_weight(epochs - 1, end_at_zero=True, epochs=epochs) == 0


def test_end_at_zero_only_falls():
    weights = [stage_weight(e, end_at_zero=True, epochs=30) for e in range(30)]
    assert weights == sorted(weights, reverse=True)
    assert weights[0] == pytest.approx(0.4)


def test_wrong_weight_arguments_are_refused():
    with pytest.raises(ValueError, match="start: .*got 1"):
        stage_weight(0, start=1)
    with pytest.raises(ValueError, match="decay: .*got 1.5"):
        stage_weight(0, decay=1.5)
    with pytest.raises(ValueError, match="epoch: .*got -1"):
        stage_weight(-1)
    with pytest.raises(ValueError, match="expected 0 to 9 of 10 epochs, got 10"):
        stage_weight(10, end_at_zero=True, epochs=10)


def test_warm_up_is_linear():
    assert lr_factor(0, 1000) == pytest.approx(1 / 250)
    assert lr_factor(124, 1000) == pytest.approx(0.5)
    assert lr_factor(249, 1000) == 1
    assert lr_factor(250, 1000) == 1


def test_decay_is_polynomial():
    assert lr_factor(650, 1000) == pytest.approx(0.6**0.9)
    assert lr_factor(999, 1000) == pytest.approx((1 - 749 / 1000) ** 0.9)
    assert lr_factor(500, 1000, warmup=0, power=2) == pytest.approx(0.25)


def test_wrong_rate_arguments_are_refused():
    with pytest.raises(ValueError, match="iteration: expected 0 to 9, got 10"):
        lr_factor(10, 10)
    with pytest.raises(ValueError, match="warmup: .*got -1"):
        lr_factor(0, 10, warmup=-1)

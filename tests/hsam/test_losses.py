import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hsam.losses import dice_loss, resize_labels, stage_loss, two_stage_loss
from hsam.output import Segmentation


@pytest.fixture
def golden():
    logits = np.random.Generator(np.random.Philox(key=7)).standard_normal(
        (2, 9, 16, 16), dtype=np.float32
    )
    labels = np.random.Generator(np.random.Philox(key=8)).integers(0, 9, (2, 16, 16))
    return torch.from_numpy(logits), torch.from_numpy(labels)


def test_golden_numbers(golden):
    loss = stage_loss(*golden)
    assert loss.dice.item() == pytest.approx(0.823889911, abs=1e-6)
    assert loss.second.item() == pytest.approx(2.633882761, abs=1e-6)
    assert loss.total.item() == pytest.approx(1.004888996, abs=1e-6)
    assert dice_loss(*golden).item() == pytest.approx(0.823889911, abs=1e-6)


def test_mse_is_between_softmax_and_one_hot(golden):
    logits, labels = golden
    truth = F.one_hot(labels, 9).permute(0, 3, 1, 2).float()
    expected = (logits.softmax(1) - truth).square().mean()
    torch.testing.assert_close(stage_loss(*golden, second_loss="mse").second, expected)


def test_dice_by_hand():
    # one of two pixels right, with near-certain probabilities
    logits = torch.tensor([[[[50.0, 50.0]], [[0.0, 0.0]]]])
    labels = torch.tensor([[[0, 1]]])
    # class 0: 1 - 2 * 1 / (2 + 1); class 1: 1 - 0 / (0 + 1)
    assert dice_loss(logits, labels).item() == pytest.approx((1 / 3 + 1) / 2, abs=1e-4)


def test_perfect_prediction_costs_nothing():
    labels = torch.randint(0, 3, (2, 8, 8))
    logits = 60 * F.one_hot(labels, 3).permute(0, 3, 1, 2).float()
    loss = stage_loss(logits, labels)
    assert loss.total.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_dice_weight(golden, weight):
    loss = stage_loss(*golden, dice_weight=weight)
    expected = weight * loss.dice + (1 - weight) * loss.second
    torch.testing.assert_close(loss.total, expected)


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_stages_are_weighed(golden, weight):
    fine, labels = golden
    coarse = torch.randn(2, 9, 4, 4)
    loss = two_stage_loss(Segmentation(coarse, fine), labels, weight)
    first, second = stage_loss(coarse, labels[:, ::4, ::4]), stage_loss(fine, labels)
    torch.testing.assert_close(loss.total, weight * first.total + (1 - weight) * second.total)
    assert loss.coarse.total == first.total and loss.fine.total == second.total


def test_one_stage_is_not_weighed(golden):
    logits, labels = golden
    expected = stage_loss(logits, labels).total
    assert two_stage_loss(Segmentation(fine_logits=logits), labels, 0.4).total == expected
    coarse = two_stage_loss(Segmentation(coarse_logits=logits), labels, 0.4)
    assert coarse.total == expected and coarse.fine is None


def test_labels_are_resized_by_nearest_neighbour():
    labels = torch.arange(64).view(1, 8, 8)
    assert torch.equal(resize_labels(labels, (2, 2)), labels[:, ::4, ::4])


def test_half_precision_is_widened(golden):
    logits, labels = golden
    loss = stage_loss(logits.bfloat16(), labels).total
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1.004889, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_small_integer_labels(golden, dtype):
    logits, labels = golden
    assert stage_loss(logits, labels.to(dtype)).total == stage_loss(logits, labels).total


def test_wrong_arguments_are_refused(golden):
    logits, labels = golden
    with pytest.raises(ValueError, match=r"got \(2, 9, 16, 16\) and \(2, 8, 8\)"):
        dice_loss(logits, labels[:, ::2, ::2])
    with pytest.raises(TypeError, match="integer dtype, got torch.float32"):
        dice_loss(logits, labels.float())
    with pytest.raises(ValueError, match="second_loss: expected one of .*got 'focal'"):
        stage_loss(logits, labels, second_loss="focal")
    with pytest.raises(ValueError, match="dice_weight: expected a number from 0 to 1, got 2"):
        stage_loss(logits, labels, dice_weight=2)
    with pytest.raises(ValueError, match="weight: expected a number from 0 to 1, got -1"):
        two_stage_loss(Segmentation(fine_logits=logits), labels, -1)
    with pytest.raises(ValueError, match="got neither"):
        two_stage_loss(Segmentation(), labels)

import pytest
import torch
from torch import nn

from pipeline.training.step import Average


def test_an_average_follows_slowly_and_faster_at_first():
    weight = nn.Parameter(torch.zeros(3))
    average = Average([weight], 0.9)
    weight.data.fill_(1.0)
    expected = 0.0
    for step in range(200):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay)
        average.update(step)
        assert average.values[0].tolist() == pytest.approx([expected] * 3, rel=1e-5)
    assert weight.tolist() == [1, 1, 1]


def test_a_step_that_was_skipped_leaves_it_as_it_is():
    weight = nn.Parameter(torch.zeros(3))
    plain, told = Average([weight], 0.9), Average([weight], 0.9)
    weight.data.fill_(1.0)
    plain.update(4)
    told.update(4, torch.tensor(1.0))
    assert told.values[0].tolist() == pytest.approx(plain.values[0].tolist())
    before = told.values[0].clone()
    told.update(5, torch.tensor(0.0))
    assert torch.equal(told.values[0], before)


def test_it_is_applied_inside_the_block_only():
    weight = nn.Parameter(torch.ones(2))
    average = Average([weight], 0.5)
    weight.data.fill_(3.0)
    with pytest.raises(ZeroDivisionError), average.applied():
        assert weight.tolist() == [1, 1]
        raise ZeroDivisionError
    assert weight.tolist() == [3, 3]
    average.keep()
    assert weight.tolist() == [1, 1]


def test_another_averages_values_can_be_taken_over():
    weight = nn.Parameter(torch.ones(2))
    average = Average([weight], 0.5)
    average.load([torch.tensor([4.0, 5.0])])
    with average.applied():
        assert weight.tolist() == [4, 5]

import numpy as np
import torch

from pipeline.training.sampling import epoch_order, rare_organ_weights

# organ 1 in four of five slices, organ 2 in one of them
COUNTS = np.array([[9, 5, 0], [9, 5, 0], [9, 5, 0], [9, 1, 3], [9, 0, 0]])


def test_a_rare_organ_weighs_more():
    np.testing.assert_allclose(rare_organ_weights(COUNTS), [1, 1, 1, 2, 1])


def test_without_organs_all_weigh_the_same():
    assert rare_organ_weights(np.array([[9, 0], [8, 0]])).tolist() == [1, 1]


def test_an_organ_that_no_slice_shows_changes_nothing():
    more = np.pad(COUNTS, ((0, 0), (0, 1)))
    assert np.array_equal(rare_organ_weights(more), rare_organ_weights(COUNTS))


def test_an_epoch_has_every_slice_once_in_an_order_of_its_own():
    first, second = epoch_order(50, 0, 0), epoch_order(50, 0, 1)
    assert torch.equal(first.sort().values, torch.arange(50))
    assert torch.equal(first, epoch_order(50, 0, 0))
    assert not torch.equal(first, second)
    assert not torch.equal(first, epoch_order(50, 1, 0))


def test_a_weighted_epoch_shows_slices_as_often_as_they_weigh():
    weights = np.tile([1.0, 1.0, 2.0, 4.0], 10)
    wanted = torch.from_numpy(40 * weights / weights.sum())
    total = torch.zeros(40)
    for epoch in range(200):
        order = epoch_order(40, 0, epoch, weights)
        times = order.bincount(minlength=40)
        assert len(order) == 40
        assert (times >= wanted.floor()).all() and (times <= wanted.ceil()).all()
        total += times
    torch.testing.assert_close(total.double() / 200, wanted, atol=0.15, rtol=0)


def test_a_weighted_epoch_is_shuffled():
    order = epoch_order(1000, 0, 0, np.ones(1000))
    assert torch.equal(order.sort().values, torch.arange(1000))
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.15

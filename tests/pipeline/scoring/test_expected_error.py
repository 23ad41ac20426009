import numpy as np
import pytest

from pipeline.scoring.expected_error import ExpectedError, densest


def test_a_pixel_counts_what_its_probability_leaves_open():
    shares = np.zeros((3, 2, 2, 4), np.uint8)
    shares[1, 1] = [[255, 204, 51, 0], [255, 255, 102, 0]]
    labels = np.zeros((2, 2, 4), np.uint8)
    labels[1, :, :2] = 1
    expected = ExpectedError.of(5, 2, (2.0, 3.0))
    expected.add(3, labels, shares, 255)
    assert expected.mm2[3:, 0] == pytest.approx([0, 0])  # 0.2 + 0.2 + 0.4 is below one pixel
    labels[1, 1, 1] = 0  # 1 more
    expected.add(3, labels, shares, 255)
    assert expected.mm2[4, 0] == pytest.approx(6 * (0.2 + 0.2 + 0.4 + 1))
    assert (expected.mm2[:4] == 0).all() and (expected.mm2[:, 1] == 0).all()
    assert (expected.places[:4] == -1).all()


def test_batches_give_what_the_whole_gives():
    draw = np.random.default_rng(0)
    shares = draw.integers(0, 86, (3, 6, 9, 7), np.uint8)
    labels = draw.integers(0, 3, (6, 9, 7), np.uint8)
    whole, parts = (ExpectedError.of(6, 2, (1.0, 1.5)) for _ in range(2))
    whole.add(0, labels, shares, 255)
    for first in (0, 4):
        parts.add(first, labels[first : first + 4], shares[:, first : first + 4], 255)
    assert np.array_equal(whole.mm2, parts.mm2) and np.array_equal(whole.places, parts.places)
    assert whole.mm2.min() > 0 and whole.places.min() >= 0


def test_the_place_is_in_the_thick_of_the_doubt():
    """A long thin rim, and a blob elsewhere that holds more within one window."""
    doubt = np.zeros((40, 60), int)
    doubt[2, 5:50] = 100
    doubt[30:35, 40:47] = 100
    assert densest(doubt, (10, 10)) == (32, 43)
    assert densest(doubt, (1, 45)) == (2, 27)  # the rim fills this one
    doubt[:] = 0
    doubt[39, 0] = 1
    assert densest(doubt, (10, 10)) == (39, 0)

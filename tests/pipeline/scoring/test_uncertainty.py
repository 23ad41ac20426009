import numpy as np
import pytest

from pipeline.scoring.uncertainty import (
    FAINT,
    Doubt,
    ExpectedError,
    Signs,
    Uncertainty,
    clear,
    densest,
    overlaps,
)

STEPS = 255


def made_up(seed: int, organs: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (classes, 3, 4, 5) in steps, and the labels that they choose."""
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.ones(organs + 1), (3, 4, 5))
    steps = np.moveaxis(np.rint(shares * STEPS), -1, 0).astype(np.uint8)
    return steps, steps.argmax(axis=0).astype(np.uint8)


def test_signs_are_what_their_formulas_say_whatever_the_batches():
    shares, labels = made_up(1)
    coarse, fine = made_up(2)[1], made_up(3)[1]
    whole, parts = Doubt(2), Doubt(2)
    whole.add(labels, shares, STEPS, (coarse, fine))
    for part in (slice(0, 1), slice(1, 3)):
        parts.add(labels[part], shares[:, part], STEPS, (coarse[part], fine[part]))
    assert parts.signs() == whole.signs()
    for organ, signs in enumerate(whole.signs(), 1):
        p, mask = shares[organ] / STEPS, labels == organ
        assert signs.expected == pytest.approx(2 * (p * mask).sum() / (p.sum() + mask.sum()))
        sizes, shared = overlaps(coarse, fine, 2)
        assert signs.agreement == pytest.approx(2 * shared[organ - 1] / sizes[organ - 1])


def test_sure_probabilities_expect_a_dice_of_1():
    _, labels = made_up(4)
    sure = np.stack([(labels == k) * np.uint8(STEPS) for k in range(3)])
    doubt = Doubt(2)
    doubt.add(labels, sure, STEPS, (labels, labels))
    assert doubt.signs() == [Signs(1.0, 1.0)] * 2
    less = np.where(sure == STEPS, STEPS - 5, 0).astype(np.uint8)
    unsure = Doubt(2)
    unsure.add(labels, less, STEPS, (labels, labels))
    assert all(signs.expected < 1 for signs in unsure.signs())


def test_an_organ_without_a_voxel_has_no_signs_and_one_stage_no_agreement():
    shares = np.zeros((3, 1, 2, 2), np.uint8)
    shares[0], shares[1, 0, 0, 0] = 50, 200
    labels = (shares[1] > 0).astype(np.uint8)
    doubt = Doubt(2)
    doubt.add(labels, shares, STEPS)
    assert doubt.signs() == [Signs(pytest.approx(2 * 200 / (255 + 200)), None), None]


def test_stages_that_both_lack_what_their_mean_has_do_not_agree_on_it():
    labels = np.ones((1, 2, 2), np.uint8)
    shares = np.stack([np.zeros_like(labels), np.full_like(labels, STEPS)])
    doubt = Doubt(1)
    doubt.add(labels, shares, STEPS, (0 * labels, 0 * labels))
    assert doubt.signs() == [Signs(1.0, 0.0)]


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


def test_all_of_it_is_gathered_from_one_call_a_batch():
    shares, labels = made_up(1)
    stages = {"mean": labels, "coarse": made_up(2)[1], "fine": made_up(3)[1]}
    found, doubt = Uncertainty.of(3, 2, (1.0, 1.0)), Doubt(2)
    expected = ExpectedError.of(3, 2, (1.0, 1.0))
    for first in (0, 2):
        part = slice(first, first + 2)
        found.add(first, {s: of[part] for s, of in stages.items()}, "mean", shares[:, part], STEPS)
    doubt.add(labels, clear(shares, STEPS), STEPS, (stages["coarse"], stages["fine"]))
    expected.add(0, labels, clear(shares, STEPS), STEPS)
    assert found.doubt.signs() == doubt.signs()
    assert np.array_equal(found.expected.mm2, expected.mm2)
    one = Uncertainty.of(3, 2, (1.0, 1.0))
    one.add(0, {"mean": labels}, "mean", shares, STEPS)
    assert all(signs.agreement is None for signs in one.doubt.signs())


@pytest.mark.parametrize("steps", [10, STEPS])
def test_faint_doubt_counts_as_none(steps):
    given = np.arange(steps + 1, dtype=np.uint8)
    found = clear(given, steps) / steps
    share = given / steps
    faint = (share < FAINT) | (share > 1 - FAINT)
    assert np.array_equal(found[faint], np.rint(share[faint])) and faint.sum() >= 2
    assert np.array_equal(found[~faint], share[~faint])
    assert given[1] == 1  # what goes into files stays as it was


def test_a_haze_over_the_whole_picture_does_not_hide_the_place_in_doubt():
    labels = np.zeros((2, 40, 40), np.uint8)
    organ = np.zeros(labels.shape, np.uint8)
    organ[0] = 20  # 8% everywhere, never wrong
    organ[1, 10:14, 10:14] = 115  # 45%
    found = Uncertainty.of(2, 1, (1.0, 1.0))
    found.add(0, {"mean": labels}, "mean", np.stack([STEPS - organ, organ]), STEPS)
    assert found.expected.mm2[:, 0] == pytest.approx([0, 16 * 115 / STEPS])

import numpy as np
import pytest

from pipeline.scoring.disagreement import overlaps
from pipeline.scoring.doubt import Doubt, Signs

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

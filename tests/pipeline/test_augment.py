import torch

from pipeline.augment import augment
from pipeline.params import Augment

EVERYTHING = Augment(probability=1.0, rotation_degrees=20.0, scale=0.2, shift=0.1)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.zeros(4, 32, 32, dtype=torch.uint8)
    labels[:, 8:20, 10:16] = 3
    labels[:, 22:26, 4:28] = 7
    return labels[:, None].float() / 7, labels


def moved(settings: Augment, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return augment(*batch(), settings, torch.Generator().manual_seed(seed))


def test_no_class_is_invented():
    for seed in range(20):
        assert set(moved(EVERYTHING, seed)[1].unique().tolist()) <= {0, 3, 7}


def test_image_and_label_move_together():
    images, labels = moved(EVERYTHING)
    assert not torch.equal(labels, batch()[1])
    wrong = ((images[:, 0] * 7).round() != labels).float().mean()
    assert wrong < 0.1  # only edges, which the image blurs and the label does not


def test_the_same_generator_gives_the_same_batch():
    for a, b in zip(moved(EVERYTHING), moved(EVERYTHING), strict=True):
        assert torch.equal(a, b)


def test_probability_zero_changes_nothing():
    still = EVERYTHING.model_copy(update={"probability": 0.0})
    images, labels = moved(still)
    assert torch.equal(labels, batch()[1])
    torch.testing.assert_close(images, batch()[0], rtol=0, atol=1e-5)


def test_a_quarter_turn_turns_the_label():
    turn = Augment(probability=1.0, rotation_degrees=180.0, scale=0.0, shift=0.0)
    generator = torch.Generator().manual_seed(0)
    angles = (2 * torch.rand(5, 64, generator=generator)[1] - 1) * 180
    images, labels = batch()
    images, labels = images[:1].repeat(64, 1, 1, 1), labels[:1].repeat(64, 1, 1)
    turned = augment(images, labels, turn, torch.Generator().manual_seed(0))[1]
    nearest = int((angles.abs() - 90).abs().argmin())
    quarter = torch.rot90(labels[0], 1 if angles[nearest] > 0 else -1)
    assert (turned[nearest] != quarter).float().mean() < 0.05

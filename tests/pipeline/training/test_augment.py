import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.core.params.load import load
from pipeline.imaging.resize import resize_images, resize_labels
from pipeline.training.augment import augment, draw, sample_seeds
from tests.pipeline.conftest import ROOT

RECIPE = load([ROOT / "workflow" / "presets" / "paper.yaml"]).train.augment
SIDE = 32


def only(**changes):
    """The recipe with one of its transforms on every slice, or with other changes."""
    still = {"rotate": 0.0, "crop": 0.0, "elastic": 0.0}
    return RECIPE.model_copy(update={**still, **changes})


EVERY = {
    "rotation": only(rotate=1.0),
    "crop": only(crop=1.0),
    "elastic": only(elastic=1.0, elastic_shift=0.05),
    "recipe": RECIPE,
}


def batch(count: int = 4, side: int = SIDE) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.zeros(count, side, side, dtype=torch.uint8)
    labels[:, side // 4 : 5 * side // 8, side // 3 : side // 2] = 3
    labels[:, 5 * side // 8 : 7 * side // 8, side // 8 : 7 * side // 8] = 7
    return labels.float() / 7, labels


def seeds(count: int = 4, epoch: int = 0) -> torch.Tensor:
    return sample_seeds(0, epoch, torch.arange(count))


@given(
    transform=st.sampled_from(sorted(EVERY)),
    classes=st.lists(st.integers(0, 255), min_size=1, max_size=5),
    seed=st.integers(0, 2**63 - 1),
    shape=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    size=st.sampled_from([8, 16, 24]),
)
def test_no_class_is_invented(transform, classes, seed, shape, size):
    pattern = np.random.default_rng(seed).choice(classes, (1, *shape)).astype(np.uint8)
    labels = torch.from_numpy(pattern)
    moved = augment(labels / 255, labels, EVERY[transform], torch.tensor([seed]), size)[1]
    assert moved.dtype == torch.uint8 and moved.shape == (1, size, size)
    assert set(moved.unique().tolist()) <= {0, *classes}


@pytest.mark.parametrize("side", [SIDE, 2 * SIDE + 5])
@pytest.mark.parametrize("transform", EVERY)
def test_image_and_label_move_together(transform, side):
    images, labels = batch(8, side)
    moved, where = augment(images, labels, EVERY[transform], seeds(8), SIDE)
    assert not torch.equal(where, resize_labels(labels, (SIDE, SIDE)))
    # they differ at edges alone, which the image blurs and the label does not
    inside = torch.from_numpy(
        ndimage.minimum_filter(where, (1, 5, 5)) == ndimage.maximum_filter(where, (1, 5, 5))
    )
    assert inside.float().mean() > 0.3
    same = (moved[:, 0] * 7).round() == where
    assert same[inside].float().mean() > 0.995


@pytest.mark.parametrize("transform", EVERY)
def test_a_sample_is_the_same_in_every_batch(transform):
    sides = (SIDE, 50, SIDE, 70, 50, 20)
    images, labels = zip(*((each[0] for each in batch(1, side)) for side in sides), strict=True)
    settings = EVERY[transform].model_copy(update={"noise": 0.1, "gamma": 1.5})
    whole = augment(images, labels, settings, seeds(6), SIDE)
    for chosen in ([2], [5, 2, 0], [4, 1]):
        pairs = [images[index] for index in chosen], [labels[index] for index in chosen]
        part = augment(*pairs, settings, seeds(6)[chosen], SIDE)
        assert torch.equal(part[0], whole[0][chosen])
        assert torch.equal(part[1], whole[1][chosen])


def test_samples_of_a_batch_and_epochs_differ():
    images, labels = batch(8)
    first = augment(images, labels, RECIPE, seeds(8), SIDE)[0]
    assert len({image.numpy().tobytes() for image in first}) >= 7
    assert not torch.equal(first, augment(images, labels, RECIPE, seeds(8, epoch=1), SIDE)[0])


@pytest.mark.parametrize("shape", [(SIDE, SIDE), (70, 41), (20, 24)])
def test_what_is_left_alone_is_what_prediction_sees_to_the_last_bit(shape):
    images, labels = torch.rand(4, *shape), torch.randint(0, 9, (4, *shape), dtype=torch.uint8)
    still, where = augment(images, labels, only(), seeds(), SIDE)
    assert torch.equal(still, resize_images(images[:, None], (SIDE, SIDE)))
    assert torch.equal(where, resize_labels(labels, (SIDE, SIDE)))
    if shape == (SIDE, SIDE):
        assert torch.equal(still[:, 0], images) and torch.equal(where, labels)


def test_shares_are_those_of_the_recipe():
    draws = [draw(RECIPE, seed, SIDE) for seed in range(4000)]
    rotated = [one for one in draws if one.matrix[0, 1] != 0]
    cropped = [one for one in draws if one.matrix[0, 0] < 0.9]
    deformed = [one for one in draws if one.nodes is not None]
    shares = [len(kind) / 4000 for kind in (rotated, cropped, deformed)]
    # 0.45, 0.75 of the other 0.55, 0.85 of the rest; four standard deviations are 0.03
    np.testing.assert_allclose(shares, [0.45, 0.4125, 0.116875], atol=0.03)
    angles = np.degrees([np.arcsin(one.matrix[1, 0]) for one in rotated])
    assert -20 <= angles.min() < -19 and 19 < angles.max() <= 20
    sides = np.array([one.matrix[0, 0] for one in cropped])
    assert 0.2 <= sides.min() < 0.21 and 0.79 < sides.max() <= 0.8
    edges = np.abs([one.matrix[:, 2] for one in cropped]).max(1) + sides
    assert 0.99 < edges.max() <= 1  # no crop leaves the slice


def test_a_quarter_turn_turns_the_label():
    images, labels = batch(64)
    settings = only(rotate=1.0, rotation_degrees=180.0)
    turned = augment(images, labels, settings, seeds(64), SIDE)[1]
    sines = [draw(settings, seed, SIDE).matrix[1, 0] for seed in seeds(64).tolist()]
    nearest = int(np.argmax(np.abs(sines)))
    quarter = torch.rot90(labels[0], 1 if sines[nearest] > 0 else -1)
    assert (turned[nearest] != quarter).float().mean() < 0.05


def test_a_crop_fills_the_slice_with_its_part():
    side = 64
    ramp = torch.linspace(0, 1, side).expand(1, side, side)
    labels = torch.zeros(1, side, side, dtype=torch.uint8)
    settings = only(crop=1.0, crop_side=[0.5, 0.5])
    cropped = augment(ramp, labels, settings, seeds(1), side)[0][0, 0]
    steps = cropped[:, 1:] - cropped[:, :-1]
    torch.testing.assert_close(steps, torch.full_like(steps, 0.5 / (side - 1)), atol=1e-5, rtol=0)


def test_a_crop_as_large_as_the_model_keeps_the_slices_own_pixels():
    side, size = 112, 49
    numbers = torch.arange(side * side).reshape(1, side, side)
    labels = (numbers % 251).to(torch.uint8)
    images = torch.rand(1, side, side)
    settings = only(crop=1.0, crop_side=[size / side] * 2)
    for epoch in range(8):
        one = seeds(1, epoch)
        cropped, where = augment(images, labels, settings, one, size)
        # its corner in the slice's pixels, of which grid_sample counts the centres
        corner = (draw(settings, one.item(), size).matrix[:, 2] + 1) * side / 2 - size / 2
        left, top = np.rint(corner).astype(int).tolist()
        assert torch.equal(where[0], labels[0, top : top + size, left : left + size])
        # between whole pixels, the image is read where it lies, and nowhere smoothed
        shifted = ndimage.shift(images[0].numpy(), -corner[::-1], order=1)
        np.testing.assert_allclose(cropped[0, 0], shifted[:size, :size], atol=1e-4)


@pytest.mark.parametrize("transform", ["rotation", "crop", "elastic"])
@pytest.mark.parametrize("shape", [(96, 96), (120, 80), (40, 50)])
def test_one_resampling_is_the_two_in_a_row_where_the_image_is_smooth(transform, shape):
    rows, columns = (
        torch.linspace(0.5 / side, 1 - 0.5 / side, side, dtype=torch.float64) for side in shape
    )
    image = (0.5 + 0.4 * torch.sin(5 * rows)[:, None] * torch.cos(4 * columns)).float()
    images = image.expand(4, *shape)
    labels = (images * 4).to(torch.uint8)
    first = resize_images(images[:, None], (SIDE, SIDE))[:, 0]
    second = resize_labels(labels, (SIDE, SIDE))
    once = augment(images, labels, EVERY[transform], seeds(), SIDE)
    twice = augment(first, second, EVERY[transform], seeds(), SIDE)
    inside = (slice(None), slice(None), slice(6, -6), slice(6, -6))  # rotation pulls in what is 0
    torch.testing.assert_close(once[0][inside], twice[0][inside], atol=0.01, rtol=0)
    assert (once[1] != twice[1]).float().mean() < 0.06


def test_fine_patterns_are_averaged_where_the_model_is_coarser():
    side = 4 * SIDE
    images = (torch.arange(side) % 2).float().expand(4, side, side).contiguous()
    labels = torch.zeros(4, side, side, dtype=torch.uint8)
    settings = only(crop=1.0, crop_side=[0.9, 0.9])
    moved = augment(images, labels, settings, seeds(), SIDE)[0]
    torch.testing.assert_close(moved, torch.full_like(moved, 0.5), atol=0.06, rtol=0)


def test_a_deformation_has_the_shift_and_smoothness_asked_for():
    side, sigma, shift = 64, 0.1, 0.02
    settings = only(elastic=1.0, elastic_sigma=sigma, elastic_shift=shift)
    row = torch.linspace(0.5 / side, 1 - 0.5 / side, side)
    images = row.expand(256, side, side)  # a pixel's brightness is its column
    labels = torch.zeros(256, side, side, dtype=torch.uint8)
    moved = augment(images, labels, settings, seeds(256), side)[0][:, 0]
    field = (moved - row)[:, 16:48, 16:48]
    assert field.std().item() == pytest.approx(shift, rel=0.05)
    # two Gaussians of sigma s, a distance d apart, overlap by exp(-d^2 / 4 s^2)
    apart = 8
    product = (field[..., :-apart] * field[..., apart:]).mean() / field.square().mean()
    assert product.item() == pytest.approx(np.exp(-((apart / side / sigma) ** 2) / 4), abs=0.06)


def test_noise_and_gamma_change_the_image_alone():
    images, labels = batch()
    noisy, where = augment(images, labels, only(noise=0.2), seeds(), SIDE)
    assert torch.equal(where, labels)
    assert 0 < (noisy[:, 0] - images).abs().mean() < 0.2
    assert noisy.min() >= 0 and noisy.max() <= 1
    bent, where = augment(images, labels, only(gamma=2.0), seeds(), SIDE)
    assert torch.equal(where, labels)
    bent = bent[:, 0]
    assert not torch.equal(bent, images)
    assert torch.equal(bent == 0, images == 0) and torch.equal(bent == 1, images == 1)


def test_seeds_are_a_function_of_seed_epoch_and_sample():
    first = sample_seeds(42, 3, torch.arange(100))
    assert torch.equal(sample_seeds(42, 3, torch.tensor([99, 0, 7])), first[[99, 0, 7]])
    others = [sample_seeds(42, 4, torch.arange(100)), sample_seeds(43, 3, torch.arange(100))]
    assert len(torch.cat([first, *others]).unique()) == 300
    assert first.min() >= 0 and first.dtype == torch.int64


@pytest.mark.gpu
@pytest.mark.parametrize("side", [SIDE, 75])
@pytest.mark.parametrize("transform", EVERY)
def test_a_gpu_gives_what_the_cpu_gives(transform, side):
    images, labels = torch.rand(4, side, side), batch(4, side)[1]
    ours = augment(images, labels, EVERY[transform], seeds(), SIDE)
    theirs = augment(images.cuda(), labels.cuda(), EVERY[transform], seeds(), SIDE)
    torch.testing.assert_close(theirs[0].cpu(), ours[0], atol=1e-3, rtol=0)
    assert (theirs[1].cpu() != ours[1]).float().mean() < 0.005


@pytest.mark.gpu
def test_a_gpu_waits_for_nothing():
    pairs = [(each[0].cuda() for each in batch(1, side)) for side in 8 * (SIDE, 75)]
    images, labels = zip(*pairs, strict=True)
    settings = RECIPE.model_copy(update={"noise": 0.1, "gamma": 1.5})
    augment(images, labels, settings, seeds(16), SIDE)
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(images, labels, settings, seeds(16), SIDE)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("transform", EVERY)
def test_channels_move_together_as_one_would_alone(transform):
    images, labels = batch(6, 45)
    three = torch.stack([images, 1 - images, images / 2], 1)
    moved, where = augment(three, labels, EVERY[transform], seeds(6), SIDE)
    alone, expected = augment(images, labels, EVERY[transform], seeds(6), SIDE)
    assert moved.shape == (6, 3, SIDE, SIDE) and torch.equal(where, expected)
    torch.testing.assert_close(moved[:, :1], alone)
    torch.testing.assert_close(moved[:, 2:], alone / 2)


def test_each_channel_has_contrast_and_noise_of_its_own():
    images, labels = batch(4)
    both = torch.stack([images, images], 1)
    for settings in (only(noise=0.2), only(gamma=1.5)):
        moved, _ = augment(both, labels, settings, seeds(), SIDE)
        assert (moved[:, 0] - moved[:, 1]).abs().amax((1, 2)).min() > 1e-3
    one = augment(images, labels, only(gamma=1.5), seeds(), SIDE)[0]
    assert torch.equal(augment(both, labels, only(gamma=1.5), seeds(), SIDE)[0][:, :1], one)

import numpy as np
import pytest
import torch

from pipeline.imaging.resize import (
    resample_images,
    resize_images,
    resize_labels,
    resize_logits,
)


def test_sizes_that_fit_are_left_alone():
    image = torch.rand(2, 1, 8, 8)
    assert resize_images(image, (8, 8)) is image


def test_images_and_labels_stay_aligned():
    labels = torch.zeros(1, 40, 60, dtype=torch.uint8)
    labels[:, 12:28, 20:44] = 1
    small_labels = resize_labels(labels, (20, 20)).float()
    small_images = resize_images(labels[:, None].float(), (20, 20))[:, 0]
    assert ((small_images - small_labels).abs() < 0.51).all()


def test_shrinking_averages_instead_of_skipping():
    image = torch.zeros(1, 1, 8, 8)
    image[..., ::4, ::4] = 1
    assert torch.allclose(resize_images(image, (2, 2)).mean(), image.mean(), atol=0.03)


def test_labels_keep_their_dtype_and_values():
    labels = torch.randint(0, 9, (2, 17, 23), dtype=torch.uint8)
    resized = resize_labels(labels, (32, 32))
    assert resized.dtype == torch.uint8
    assert set(resized.unique().tolist()) <= set(labels.unique().tolist())


def test_logits_are_resized_channel_by_channel():
    logits = torch.arange(3.0).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert torch.equal(resize_logits(logits, (8, 8)), logits[..., :1, :1].expand(1, 3, 8, 8))


@pytest.mark.parametrize("size", [(5, 7), (20, 9), (31, 40), (20, 30)])
@pytest.mark.parametrize("kind", [">i2", "u2", "f4", "f8"])
def test_volumes_are_resampled_as_slices_are_resized(size, kind):
    random = np.random.Generator(np.random.Philox(key=1))
    images = random.integers(0, 1000, (3, 30, 20)).astype(kind).transpose(0, 2, 1)[:, ::-1]
    expected = resize_images(torch.from_numpy(images.astype("f4").copy())[:, None], size)[:, 0]
    found = resample_images(images, size)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected.numpy())


def test_down_sampling_smooths_what_the_new_pixels_can_not_show():
    stripes = np.tile(np.array([0, 0, 0, 300], np.int16), (2, 8, 16))
    coarse = resample_images(stripes, (2, 16))[:, :, 1:-1]
    assert coarse.std() < 3 and coarse.mean() == pytest.approx(75, abs=3)


def test_resampling_keeps_the_field_of_view():
    ramp = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    doubled = resample_images(ramp, (1, 8))
    assert doubled[0, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    halved = resample_images(np.arange(40, dtype=np.float32).reshape(1, 1, 40), (1, 20))
    assert np.allclose(halved[0, 0, 1:-1], np.arange(20)[1:-1] * 2 + 0.5, atol=1e-4)

import torch

from pipeline.imaging.resize import resize_images, resize_labels, resize_logits


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

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

import hsam
from hsam import Segmentation
from pipeline.inference.volume import model_stages, predict_stages, predict_volume


class Bands(nn.Module):
    """Classes by brightness: one peak at 0, 0.5 and 1; the coarse stage sees nothing."""

    image_size = 32

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, image: torch.Tensor) -> Segmentation:
        assert image.shape[1:] == (1, 32, 32) and image.dtype == torch.float32
        assert not self.training and not torch.is_grad_enabled()
        self.batches.append(len(image))
        peaks = torch.tensor([0.0, 0.5, 1.0], device=image.device)[:, None, None]
        fine = -((image - peaks) ** 2)
        coarse = torch.zeros(len(image), 3, 8, 8)
        coarse[:, 2] = 10
        return Segmentation(coarse, fine)


def smooth(shape: tuple[int, int, int]) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(3).random(shape), (0, 4, 4))
    return ((noise - noise.min()) / np.ptp(noise)).astype(np.float32)


def test_labels_at_the_models_own_size():
    images = smooth((5, 32, 32))
    labels = predict_volume(Bands(), images, stage="fine", batch_size=2)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, np.digitize(images, [0.25, 0.75]))


@pytest.mark.parametrize("plane", [(32, 32), (48, 40), (20, 27), (64, 64)])
def test_labels_lie_where_the_image_says(plane):
    images = smooth((4, *plane))
    labels = predict_volume(Bands(), images, stage="fine", batch_size=3)
    assert labels.shape == images.shape
    wanted = np.digitize(images, [0.25, 0.75])
    # resampling moves boundaries by a pixel at most, a shift or a flip would move all
    inner = (ndimage.minimum_filter(wanted, (1, 3, 3)) == wanted) & (
        ndimage.maximum_filter(wanted, (1, 3, 3)) == wanted
    )
    assert inner.mean() > 0.5
    assert (labels == wanted)[inner].mean() > 0.999


def test_every_batch_size_gives_the_same_labels():
    images = smooth((7, 40, 36))
    model = Bands()
    whole = predict_volume(model, images, stage="fine", batch_size=7)
    parts = predict_volume(model, images, stage="fine", batch_size=3)
    np.testing.assert_array_equal(whole, parts)
    assert model.batches == [7, 3, 3, 1]


def test_the_stage_is_the_one_asked_for():
    images = smooth((2, 32, 32))
    assert (predict_volume(Bands(), images, stage="coarse") == 2).all()
    assert (predict_volume(Bands(), images) == 2).all()  # the mean of a sure and an unsure stage
    assert (predict_volume(Bands(), images, stage="fine") != 2).any()


def test_training_mode_is_put_back():
    model = Bands().train()
    predict_volume(model, smooth((1, 32, 32)))
    assert model.training
    predict_volume(model.eval(), smooth((1, 32, 32)))
    assert not model.training


def test_a_slice_is_no_volume():
    with pytest.raises(ValueError, match=r"\(32, 32\)"):
        predict_volume(Bands(), np.zeros((32, 32), np.float32))
    with pytest.raises(ValueError, match="batch_size"):
        predict_volume(Bands(), np.zeros((1, 32, 32), np.float32), batch_size=0)


def test_several_stages_take_one_pass():
    images, model = smooth((3, 32, 32)), Bands()
    found = predict_stages(model, images, ["mean", "coarse", "fine"], batch_size=3)
    assert model.batches == [3]
    for stage, labels in found.items():
        np.testing.assert_array_equal(labels, predict_volume(Bands(), images, stage=stage))


def test_the_stages_that_a_model_has():
    assert model_stages(hsam.build("hsam", "vit_tiny", image_size=32)) == ("mean", "coarse", "fine")
    model = hsam.build("samed", "vit_tiny", image_size=32)
    assert model_stages(model) == ("mean", "coarse")
    for name, entry in hsam.MODELS.items():
        model = hsam.build(name, image_size=32, **{"backbone": "vit_tiny"} if entry.takes else {})
        with torch.no_grad():
            answer = model.eval()(torch.zeros(1, 1, 32, 32))
        for stage in model_stages(model):
            assert answer.logits(stage).shape == (1, model.classes, 32, 32)
        assert len(model_stages(model)) == 1 + sum(
            logits is not None for logits in (answer.coarse_logits, answer.fine_logits)
        )

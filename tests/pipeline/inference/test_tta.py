import pytest
import torch
from scipy import ndimage

from pipeline.inference import tta
from pipeline.inference.tta import VIEWS, View
from pipeline.inference.volume import forward
from tests.pipeline.inference.test_volume import Bands, smooth


def blob() -> torch.Tensor:
    """(1, 1, 32, 32), bright in the middle, off centre."""
    image = torch.zeros(1, 1, 32, 32)
    image[..., 12:20, 14:24] = 1
    return torch.from_numpy(ndimage.gaussian_filter(image.numpy(), (0, 0, 2, 2)))


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_and_back_is_the_image(view):
    image = blob()
    assert (tta.warp(image, view) - image).abs().max() > 0.03
    back = tta.warp(tta.warp(image, view), view.inverse())
    assert (back - image).abs().max() < 0.05


def test_a_view_enlarges_and_turns():
    image = torch.zeros(1, 1, 33, 33)
    image[..., 16, 24] = 1  # right of the centre
    turned = tta.warp(image, View(90, 1.0))
    assert divmod(int(turned.argmax()), 33) in ((8, 16), (24, 16))
    larger = tta.warp(blob(), View(0, 1.5))
    assert larger.sum() > 1.8 * blob().sum()


def test_no_view_mirrors():
    assert all(torch.linalg.det(view.matrix()[:, :2]) > 0 for view in VIEWS)


def test_the_average_of_a_model_that_sees_pixels_is_near_its_answer():
    images = torch.from_numpy(smooth((2, 32, 32)))[:, None]
    model = Bands().eval()
    with torch.inference_mode():
        single = forward(model, images, ["fine"])["fine"]
        several = tta.averaged(model, images, ["fine"])["fine"]
    assert model.batches == [2] * (2 + len(VIEWS))
    agreement = (single.argmax(1) == several.argmax(1)).float().mean()
    assert 0.9 < agreement < 1  # resampling moves a border here and there


def test_places_that_a_view_does_not_show_count_for_nothing():
    images = torch.full((1, 1, 32, 32), 0.5)
    with torch.inference_mode():
        several = tta.averaged(Bands().eval(), images, ["fine"], [View(0, 2.0)])["fine"]
    assert (several.argmax(1) == 1).all()

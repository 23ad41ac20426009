import copy

import pytest
import torch

import hsam
from hsam import SegmentationModel
from hsam.model import EncodedModel
from pipeline.inference import tta
from pipeline.inference.ensemble import together
from pipeline.inference.volume import forward


def built(name: str, seed: int) -> SegmentationModel:
    torch.manual_seed(seed)
    backbone = () if name == "unet" else ("vit_tiny",)
    return hsam.build(name, *backbone, image_size=32, num_classes=2).eval()


def of_the_same_encoder(model: EncodedModel) -> EncodedModel:
    """A copy with other decoders."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in other.named_parameters():
            if not name.startswith("image_encoder."):
                parameter.mul_(1.1)
    return other


def calls(model: EncodedModel) -> list[int]:
    """Filled with the batches that the model's encoder sees."""
    seen: list[int] = []
    model.image_encoder.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    return seen


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand((2, 1, 32, 32), generator=torch.Generator().manual_seed(1))


def test_logits_are_the_mean_of_each_models(images):
    models = [built("hsam", 1), built("hsam", 2), built("samed", 3), built("unet", 4)]
    with torch.inference_mode():
        alone = [forward(model, images, ["mean"])["mean"] for model in models]
        mean = together(models)(models[0], images, ["mean"])["mean"]
    torch.testing.assert_close(mean, torch.stack(alone).mean(0))


def test_an_encoder_that_models_share_runs_once(images):
    first, other = built("hsam", 1), built("samed", 2)
    models = [first, of_the_same_encoder(first), other]
    stages = ["mean"]
    with torch.inference_mode():
        alone = [forward(model, images, stages)["mean"] for model in models]
        assert not torch.equal(alone[0], alone[1])
        average = together(models)
        assert models[1].image_encoder is first.image_encoder is not other.image_encoder
        seen, others = calls(first), calls(other)
        mean = average(first, images, stages)["mean"]
    torch.testing.assert_close(mean, torch.stack(alone).mean(0))
    assert (seen, others) == ([2], [2])


def test_views_are_of_all_models(images):
    models = [built("hsam", 1), built("hsam", 2)]
    with torch.inference_mode():
        alone = [tta.averaged(model, images, ["fine"])["fine"] for model in models]
        both = tta.averaged(models[0], images, ["fine"], forward=together(models))["fine"]
    torch.testing.assert_close(both, torch.stack(alone).mean(0))

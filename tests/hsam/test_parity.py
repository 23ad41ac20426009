"""Agreement with what the published H-SAM code computes.

`fixtures/hsam_vit_b_224.npz` was computed by the published code in eval mode (float32, CPU) for
ViT-B, 224 px, 8 organs, rank 4, with every tensor of both checkpoint files `seeded(name, shape)`
and the image `seeded_image(224, 224)`.
"""

import numpy as np
import pytest
import torch

import hsam
from tests.hsam.seeded import FIXTURES, seeded_image


@pytest.fixture(scope="module")
def output(published_files):
    sam, adapter = published_files
    model = hsam.build_hsam("vit_b", image_size=224, num_classes=8, sam_checkpoint=sam)
    hsam.load_published_adapter(model, adapter)
    with torch.no_grad():
        return model.eval()(seeded_image(224, 224))


@pytest.fixture(scope="module")
def expected():
    return dict(np.load(FIXTURES / "hsam_vit_b_224.npz"))


def difference(found: torch.Tensor, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found.numpy() - expected).max())


def test_coarse_logits(output, expected):
    assert difference(output.coarse_logits, expected["coarse_logits"]) < 1e-4


def test_fine_logits(output, expected):
    assert difference(output.fine_logits[:, :, ::4, ::4], expected["fine_logits_every_4th"]) < 1e-4


def test_mean_logits(output, expected):
    assert difference(output.logits()[:, :, ::8, ::8], expected["mean_logits_every_8th"]) < 1e-4

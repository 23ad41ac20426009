"""Helpers of the model tests: deterministic tensors, a toy backbone, SAM-like files."""

import json

import numpy as np
import pytest
import torch

from hsam.backbones import BACKBONES, Backbone
from hsam.builders import build_hsam
from hsam.encoders.sam_vit import SamViT
from tests.hsam.seeded import FIXTURES, seeded, seeded_image
from tests.hsam.toys import TOY, randomise, sam_state


@pytest.fixture(autouse=True)
def toy_backbone(monkeypatch):
    """A backbone of two blocks; "pretrained"."""
    monkeypatch.setitem(BACKBONES, "toy", TOY)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors gain nothing from threads, and lose much where other processes want them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def toy():
    """Toy H-SAM with seeded weights: 64 px, 3 organs."""

    def make(**arguments):
        return randomise(build_hsam("toy", **{"image_size": 64, "num_classes": 3} | arguments))

    return make


@pytest.fixture
def batch():
    """Two images of 64 px and their labels in 0..3."""
    image = torch.cat([seeded_image(1, 64), seeded_image(2, 64)])[:, :1]
    rng = np.random.Generator(np.random.Philox(key=3))
    return image, torch.from_numpy(rng.integers(0, 4, (2, 64, 64)))


@pytest.fixture
def toy_sam_file(tmp_path):
    """A SAM checkpoint of the toy backbone, made for 128 px."""
    path = tmp_path / "sam.pth"
    torch.save(sam_state(), path)
    return path


@pytest.fixture
def make_encoder():
    """An image encoder of a given backbone with seeded weights."""

    def make(backbone: Backbone, image_size: int) -> SamViT:
        return randomise(SamViT(backbone, image_size)).eval()

    return make


@pytest.fixture(scope="session")
def published_keys():
    """Names and shapes: (SAM ViT-B checkpoint, adapter file at 224 px)."""
    files = ("sam_vit_b_keys.json", "adapter_keys_224.json")
    return tuple(json.loads((FIXTURES / name).read_text()) for name in files)


@pytest.fixture(scope="session")
def published_files(published_keys, tmp_path_factory):
    """Seeded checkpoint files with exactly those names and shapes."""
    folder = tmp_path_factory.mktemp("published")
    paths = folder / "sam.pth", folder / "adapter.pth"
    for path, keys in zip(paths, published_keys, strict=True):
        # both prompt encoders are one module in the published H-SAM code
        state = {
            key: seeded(key.replace("prompt_encoder2.", "prompt_encoder."), tuple(shape))
            for key, shape in keys.items()
        }
        torch.save(state, path)
    yield paths
    for path in paths:
        path.unlink()

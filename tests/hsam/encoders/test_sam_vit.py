import pytest
import torch

from hsam.backbones import BACKBONES, backbones, get_backbone
from hsam.encoders.sam_vit import SamViT
from tests.hsam.seeded import seeded_image


def test_embedding_has_a_sixteenth_of_the_side(make_encoder):
    encoder = make_encoder(BACKBONES["toy"], 80)
    assert encoder(seeded_image(1, 80)).shape == (1, 32, 5, 5)


@pytest.mark.parametrize("size", [0, 100, -16])
def test_wrong_size_is_refused(size):
    with pytest.raises(ValueError, match=f"multiple of 16, got {size}"):
        SamViT(BACKBONES["toy"], size)


def test_recomputed_blocks_give_the_same_gradients(make_encoder):
    encoder = make_encoder(BACKBONES["toy"], 64)
    gradients = []
    for recompute in (False, True):
        encoder.checkpoint_blocks = recompute
        encoder.zero_grad()
        encoder(seeded_image(1, 64)).square().sum().backward()
        gradients.append([p.grad.clone() for p in encoder.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def test_sizes_are_sams(published_keys):
    with torch.device("meta"):
        encoder = SamViT(BACKBONES["vit_b"], 1024)
    found = {f"image_encoder.{name}": list(p.shape) for name, p in encoder.state_dict().items()}
    expected = {k: v for k, v in published_keys[0].items() if k.startswith("image_encoder.")}
    assert found == expected


@pytest.mark.parametrize(
    ("name", "count"), [("vit_b", 89_670_912), ("vit_l", 308_278_272), ("vit_h", 637_026_048)]
)
def test_parameter_counts_are_sams(name, count):
    with torch.device("meta"):
        encoder = SamViT(BACKBONES[name], 1024)
    assert sum(p.numel() for p in encoder.parameters()) == count


def test_unknown_backbone_is_refused():
    with pytest.raises(ValueError, match="vit_b.*got 'vit_x'"):
        get_backbone("vit_x")


def test_names():
    assert set(backbones()) >= {"vit_b", "vit_l", "vit_h", "vit_tiny"}

"""The encoder's attention against SAM's own, which writes out all scores."""

import pytest
import torch

from hsam import sam
from hsam.attention import RelativePositionAttention
from hsam.backbones import sam_vit
from hsam.encoders.sam_vit import EncoderBlock
from tests.hsam.seeded import seeded, seeded_image

CASES = [
    pytest.param(14, 14, id="224 px, window block"),
    pytest.param(14, 0, id="224 px, global block"),
    pytest.param(32, 14, id="512 px, window block"),
    pytest.param(32, 0, id="512 px, global block"),
    pytest.param(4, 14, id="64 px, window larger than the grid"),
    pytest.param(20, 14, id="320 px, window block"),
]


def fill(module: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(seeded(name, tuple(parameter.shape)))
            if "rel_pos" in name:
                parameter.mul_(3)  # large enough to matter


def sam_block(dim: int, heads: int, window: int, grid: int) -> torch.nn.Module:
    def norm(width):
        return torch.nn.LayerNorm(width, eps=1e-6)

    return sam.EncoderBlock(
        dim, heads, norm_layer=norm, use_rel_pos=True, window_size=window, input_size=(grid, grid)
    )


@pytest.mark.parametrize(("grid", "window"), CASES)
def test_block_equals_sams(grid, window):
    ours = EncoderBlock(768, 12, window, grid)
    theirs = sam_block(768, 12, window, grid)
    fill(ours)
    theirs.load_state_dict(ours.state_dict())
    x = seeded("x", (1, grid, grid, 768)) * 27
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=0)


def test_gradients_equal_sams():
    ours, theirs = EncoderBlock(64, 4, 3, 5), sam_block(64, 4, 3, 5)
    fill(ours)
    theirs.load_state_dict(ours.state_dict())
    x = seeded("x", (2, 5, 5, 64)) * 8
    for block in (ours, theirs):
        block(x).square().sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, atol=2e-4, rtol=1e-4)


def test_relative_positions_matter():
    block = EncoderBlock(64, 4, 0, 5)
    fill(block)
    x = seeded("x", (1, 5, 5, 64)) * 8
    before = block(x)
    with torch.no_grad():
        block.attn.rel_pos_h.zero_()
    assert (block(x) - before).abs().max() > 1e-3


def test_table_of_another_size_is_refused():
    small = RelativePositionAttention(8, 2, use_rel_pos=True, input_size=(4, 4))
    with pytest.raises(ValueError, match="expected 9 rows.*got 7"):
        small(torch.zeros(1, 5, 5, 8))


@pytest.mark.parametrize("image_size", [64, 320])
def test_encoder_equals_sams(make_encoder, image_size):
    backbone = sam_vit(96, 4, 3, (1, 3), width=32)
    ours = make_encoder(backbone, image_size)
    theirs = sam.ImageEncoderViT(
        image_size,
        embed_dim=96,
        depth=4,
        num_heads=3,
        out_chans=32,
        use_rel_pos=True,
        window_size=14,
        global_attn_indexes=(1, 3),
        norm_layer=lambda width: torch.nn.LayerNorm(width, eps=1e-6),
    )
    theirs.load_state_dict(ours.state_dict())
    image = seeded_image(1, image_size)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), atol=1e-5, rtol=0)

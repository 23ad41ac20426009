"""Both forms of the encoder's attention against SAM's own, which writes out all scores."""

import pytest
import torch

from hsam import attention, cpu_attention, sam
from hsam.attention import RelativePositionAttention
from hsam.backbones import Backbone
from hsam.encoder import EncoderBlock
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


@pytest.mark.parametrize("kept", [0, 1024], ids="weights of {} keys kept".format)
@pytest.mark.parametrize("queries", [1, 7, 256], ids="{} queries at a time".format)
@pytest.mark.parametrize("scores", [1, 500, 2**18], ids="{} scores at a time".format)
@pytest.mark.parametrize(
    ("height", "width", "side"),
    [
        pytest.param(6, 6, 6, id="whole grid"),
        pytest.param(6, 9, 3, id="whole windows"),
        pytest.param(5, 8, 3, id="windows over both edges"),
        pytest.param(6, 7, 3, id="windows over one edge"),
        pytest.param(2, 3, 4, id="smaller than a window"),
    ],
)
def test_written_out_attention_gives_the_same_values_and_gradients(
    monkeypatch, height, width, side, scores, queries, kept
):
    monkeypatch.setattr(cpu_attention, "KEPT", kept)
    monkeypatch.setattr(cpu_attention, "QUERIES", queries)
    monkeypatch.setattr(cpu_attention, "SCORES", scores)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    qkv = draw(2, height, width, 3, 5, 4).requires_grad_()
    weights = draw(2 * side - 1, 4), draw(2 * side - 1, 4), draw(2, 5, 4)
    weighting = draw(2, height, width, 20)
    found = []
    for attend in (cpu_attention.attend, attention._attend):
        out = attend(qkv, *weights, side, 0.7)
        (gradient,) = torch.autograd.grad(out, qkv, weighting)
        found.append((out, gradient))
    torch.testing.assert_close(*found, atol=1e-12, rtol=0)


def test_weights_are_kept_for_a_gradient_alone():
    def saved(keys: int, trained: bool) -> int:
        sizes = []
        hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.append(x.numel()), lambda x: x
        )
        side = round(keys**0.5)
        qkv = torch.zeros(1, side, side, 3, 1, 2, requires_grad=trained)
        weights = torch.zeros(2 * side - 1, 2), torch.zeros(2 * side - 1, 2), torch.zeros(2, 1, 2)
        with hooks:
            cpu_attention.attend(qkv, *weights, side, 1.0)
        return sum(sizes)

    assert saved(1024, trained=True) > 1024 * 1024
    assert saved(33**2, trained=True) < 33**2 * 20
    assert saved(1024, trained=False) == 0


def test_written_out_attention_only_where_it_is_right():
    qkv = torch.zeros(1, 2, 2, 3, 1, 4, requires_grad=True)
    frozen, trained = torch.zeros(3, 4), torch.zeros(3, 4, requires_grad=True)
    assert cpu_attention.fits(qkv, frozen)
    assert not cpu_attention.fits(qkv, frozen, trained)
    assert not cpu_attention.fits(qkv.bfloat16(), frozen.bfloat16())
    assert not cpu_attention.fits(qkv.to("meta"), frozen.to("meta"))
    with torch.no_grad():
        assert cpu_attention.fits(qkv, trained)


@pytest.mark.parametrize("image_size", [64, 320])
def test_encoder_equals_sams(make_encoder, image_size):
    backbone = Backbone(96, 4, 3, (1, 3), width=32)
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

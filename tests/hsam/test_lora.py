import pytest
import torch
from torch import nn

from hsam.builders import build_hsam
from hsam.lora import LoRA, lora_layers, merge_lora, unmerge_lora
from hsam.losses import two_stage_loss
from tests.hsam.seeded import seeded, seeded_image


@pytest.fixture
def layer():
    layer = LoRA(nn.Linear(12, 36), rank=3, scale=0.5)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(seeded(name, tuple(parameter.shape)))
    return layer


def test_fresh_update_changes_nothing():
    plain = nn.Linear(12, 36)
    x = torch.randn(5, 12)
    assert torch.equal(LoRA(plain, rank=2)(x), plain(x))


def test_only_q_and_v_change(layer):
    x = torch.randn(5, 12)
    plain = nn.functional.linear(x, layer.weight, layer.bias)
    change = layer(x) - plain
    assert torch.equal(change[:, 12:24], torch.zeros(5, 12))
    torch.testing.assert_close(change[:, :12], 0.5 * x @ layer.a_q.T @ layer.b_q.T)
    torch.testing.assert_close(change[:, 24:], 0.5 * x @ layer.a_v.T @ layer.b_v.T)


def test_merged_weight_is_w_plus_ba(layer):
    plain = layer.weight.detach().clone()
    layer.merge()
    torch.testing.assert_close(layer.weight[:12], plain[:12] + 0.5 * layer.b_q @ layer.a_q)
    assert torch.equal(layer.weight[12:24], plain[12:24])
    torch.testing.assert_close(layer.weight[24:], plain[24:] + 0.5 * layer.b_v @ layer.a_v)


def test_merging_keeps_the_function(layer):
    x = torch.randn(5, 12)
    before = layer(x)
    layer.merge()
    torch.testing.assert_close(layer(x), before)


def test_merging_twice_is_merging_once(layer):
    layer.merge()
    once = layer.weight.detach().clone()
    layer.merge()
    assert torch.equal(layer.weight, once)


def test_unmerging_restores_every_bit(layer):
    plain = layer.weight.detach().clone()
    layer.unmerge()
    layer.merge()
    layer.unmerge()
    layer.unmerge()
    assert torch.equal(layer.weight, plain)


def test_training_unmerges(layer):
    layer.merge()
    layer.train()
    assert not layer.merged
    layer.eval().merge()
    assert layer.merged


def test_merged_weight_follows_the_dtype(layer):
    layer.merge()
    layer.double().unmerge()
    assert layer.weight.dtype == torch.float64


def test_whole_model_merges(toy):
    model = toy().double().eval()
    image = seeded_image(1, 64)
    before = model(image).fine_logits
    merge_lora(model)
    torch.testing.assert_close(model(image).fine_logits, before, atol=1e-9, rtol=1e-9)
    unmerge_lora(model)
    assert torch.equal(model(image).fine_logits, before)


@pytest.mark.parametrize(("rank", "count"), [(1, 36_864), (4, 147_456), (16, 589_824)])
def test_exact_parameter_count_at_vit_b(rank, count):
    # 12 blocks, q and v, two matrices of rank x 768 each
    with torch.device("meta"):
        model = build_hsam("vit_b", image_size=64, lora_rank=rank)
    trained = [p for n, p in model.image_encoder.named_parameters() if p.requires_grad]
    assert sum(p.numel() for p in trained) == count == 12 * 4 * rank * 768


def test_a_is_kaiming_uniform_and_b_zero():
    layer = LoRA(nn.Linear(768, 2304), rank=4)
    bound = 768**-0.5  # of Kaiming-uniform with a = sqrt(5)
    assert bound * 0.98 < layer.a_q.abs().max() <= bound
    assert not layer.b_q.any() and not layer.b_v.any()


def test_only_adapters_and_decoders_move(batch):
    model = build_hsam("toy", image_size=64, num_classes=3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = torch.optim.AdamW(model.trainable_parameters(), 0.01, weight_decay=0.1)
    image, labels = batch
    for _ in range(2):  # A gets its first gradient when B is no longer zero
        optimiser.zero_grad()
        two_stage_loss(model(image, labels), labels).total.backward()
        optimiser.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    expected = {
        name
        for name in before
        if name.endswith((".a_q", ".a_v", ".b_q", ".b_v", "no_mask_embed.weight"))
        or (name.startswith(("coarse_decoder", "fine_decoder")) and "iou_prediction" not in name)
    }
    assert moved == expected


@pytest.mark.parametrize("rank", [0, 13, -1, 2.0, True])
def test_wrong_rank_is_refused(rank):
    with pytest.raises(ValueError, match="lora_rank: expected an integer from 1 to 12"):
        LoRA(nn.Linear(12, 36), rank)


def test_wrong_projection_is_refused():
    with pytest.raises(ValueError, match="expected outputs for .* alike, got 12 -> 25"):
        LoRA(nn.Linear(12, 25), 2)


def test_rank_zero_leaves_the_encoder_alone():
    model = build_hsam("toy", image_size=64, lora_rank=0)
    assert not list(lora_layers(model))
    assert not any(p.requires_grad for p in model.image_encoder.parameters())

import pytest
import torch

from hsam.class_balance import (
    NOISE_STD,
    ClassBalancedMaskAttention,
    attention_heads,
    class_noise,
    class_noise_std,
)
from tests.hsam.seeded import seeded

PRIOR = seeded("prior", (2, 3, 16)) * 4


@pytest.fixture
def attention():
    module = ClassBalancedMaskAttention(classes=3, grid=4, mlp_dim=32)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(seeded(name, tuple(parameter.shape)))
    return module.eval()


@pytest.fixture
def labels():
    """8 x 8 labels that are 10 x class 0, 4 x class 1 and 2 x class 2 on a 4 x 4 grid."""
    grid = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 2, 2]])
    return grid.repeat_interleave(2, 0).repeat_interleave(2, 1).unsqueeze(0)


def test_gate_is_non_negative_with_mean_one(attention):
    gate = attention(PRIOR)
    assert gate.shape == (2, 16)
    assert (gate >= 0).all()
    torch.testing.assert_close(gate.mean(dim=1), torch.ones(2))


def test_gate_differs_between_positions(attention):
    assert attention(PRIOR).std() > 0.01


def test_steps_by_hand(attention):
    x = attention.norm1(attention.self_attn(PRIOR, PRIOR, PRIOR))
    x = attention.self_attn2(x, x, x)
    x = attention.norm2(x + attention.mlp(x))
    weight, bias = attention.select.weight[0], attention.select.bias
    logits = torch.relu((x * weight[:, None]).sum(dim=1) + bias)
    torch.testing.assert_close(attention(PRIOR), 16 * logits.softmax(dim=1))


def test_gradients_reach_every_weight(attention):
    attention(PRIOR).square().sum().backward()
    for name, parameter in attention.named_parameters():
        # a key's bias shifts all scores of a query alike, which softmax ignores
        if not name.endswith("k_proj.bias"):
            assert parameter.grad.abs().max() > 1e-6, name


def test_constant_gate_is_one(attention):
    attention.gate = "constant"
    assert torch.equal(attention(PRIOR), torch.ones(2, 16))


def test_unknown_gate_is_refused():
    with pytest.raises(ValueError, match="gate: expected one of .*got 'flat'"):
        ClassBalancedMaskAttention(3, 4, 32, gate="flat")


@pytest.mark.parametrize(
    ("positions", "heads"), [(196, 7), (1024, 8), (16, 8), (49, 7), (9, 3), (1, 1), (121, 1)]
)
def test_heads_divide_the_positions(positions, heads):
    assert attention_heads(positions) == heads


def test_rarest_class_gets_most_noise(labels):
    std = class_noise_std(labels, 4, 3).view(4, 4)
    assert (std[:2, 2:] == 0.3).all()  # class 1, second rarest
    assert (std[3, 2:] == 0.35).all()  # class 2, the rarest
    assert (std[:2, :2] == 0.3).all()  # class 0, third


def test_classes_are_ranked_over_the_batch(labels):
    other = torch.where(labels == 1, 2, labels)
    std = class_noise_std(torch.cat([labels, other]), 4, 3).view(2, 4, 4)
    assert (std[0, 0, 2:] == NOISE_STD[0]).all()  # class 1: 4 positions of 32
    assert (std[:, 3, 2:] == NOISE_STD[1]).all()  # class 2: 8 positions of 32


def test_levels_end_with_the_last(labels):
    std = class_noise_std(labels, 4, 3, std=(0.5, 0.1)).view(4, 4)
    assert (std[3, 2:] == 0.5).all()
    assert (std[:2] == 0.1).all()


def test_ties_go_by_class_index():
    labels = torch.tensor([[[0, 0], [5, 5]]])
    std = class_noise_std(labels, 2, 6, std=(0.5, 0.1))[0]
    assert std.tolist() == pytest.approx([0.5, 0.5, 0.1, 0.1])


def test_labels_are_resized_not_cropped(labels):
    twice = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert torch.equal(class_noise_std(twice, 4, 3), class_noise_std(labels, 4, 3))


def test_many_classes():
    labels = torch.arange(16).view(1, 4, 4)
    std = class_noise_std(labels, 4, 16)[0]
    assert std[:9].tolist() == pytest.approx(NOISE_STD)
    assert (std[9:] == 0).all()


def test_noise_has_the_levels_of_its_positions(labels):
    prior = torch.full((1, 500, 16), 2.0)
    noise = class_noise(prior, labels, (0.5, 0.0, 0.0), torch.Generator().manual_seed(0))[0]
    rare = torch.zeros(4, 4, dtype=torch.bool)
    rare[3, 2:] = True
    assert noise[:, rare.flatten()].std().item() == pytest.approx(0.5, abs=0.03)
    assert noise[:, rare.flatten()].mean().item() == pytest.approx(2.0, abs=0.05)
    assert (noise[:, ~rare.flatten()] == 2.0).all()


def test_noise_needs_labels_and_training(attention, labels):
    attention.dropout_rate = 0.0
    labels = labels.repeat(2, 1, 1)
    steady = attention(PRIOR)
    assert torch.equal(attention(PRIOR, labels), steady)
    attention.train()
    assert torch.equal(attention(PRIOR), steady)
    assert not torch.equal(attention(PRIOR, labels), steady)


def test_dropout_is_of_training_alone(attention):
    assert torch.equal(attention(PRIOR), attention(PRIOR))
    attention.train()
    assert not torch.equal(attention(PRIOR), attention(PRIOR))

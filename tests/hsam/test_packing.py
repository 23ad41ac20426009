import copy

import pytest
import torch
from torch.nn import functional as F

import hsam
from hsam.lora import lora_layers
from hsam.packing import PackableLinear
from tests.hsam.seeded import seeded_image

BATCH = 2
ROWS = BATCH * 4 * 4  # patches of an image of 64 px

needs_mkl = pytest.mark.skipif(
    not torch.backends.mkl.is_available(), reason="PyTorch was built without MKL"
)


def frozen(toy):
    model = toy()
    for layer in model.image_encoder.blocks.modules():
        if isinstance(layer, torch.nn.Linear):
            layer.weight.requires_grad_(False)
    return model


def packed_layers(model):
    return [m for m in model.modules() if isinstance(m, PackableLinear) and m.packed is not None]


@needs_mkl
def test_a_packed_encoder_computes_the_same_and_its_gradients(toy):
    plain = frozen(toy).eval()
    packed = copy.deepcopy(plain)
    assert hsam.pack_linears(packed, BATCH, backward=True) == 4 * len(plain.image_encoder.blocks)
    assert packed.state_dict().keys() == plain.state_dict().keys()
    image = seeded_image(BATCH, 64)
    for model in (plain, packed):
        model(image).logits().square().mean().backward()
    torch.testing.assert_close(packed(image).logits(), plain(image).logits(), rtol=1e-4, atol=1e-5)
    ours, theirs = dict(packed.named_parameters()), dict(plain.named_parameters())
    assert any(
        p.grad is not None and p.grad.any() for n, p in ours.items() if "a_q" in n or "b_q" in n
    )
    for name, parameter in theirs.items():
        if parameter.grad is None:
            assert ours[name].grad is None
        else:
            torch.testing.assert_close(ours[name].grad, parameter.grad, rtol=1e-3, atol=1e-6)


@needs_mkl
def test_other_inputs_than_it_was_packed_for_go_the_plain_way(toy):
    model = frozen(toy)
    hsam.pack_linears(model, BATCH)
    layer = packed_layers(model)[0]
    x = torch.rand(ROWS, layer.in_features)
    assert layer.packed.fits(x, layer.weight)
    assert not layer.packed.fits(x[:-1], layer.weight)
    assert not layer.packed.fits(x.double(), layer.weight)
    assert not layer.packed.fits(x.requires_grad_(), layer.weight)  # no transpose was packed


@needs_mkl
@pytest.mark.parametrize("change", ["written to", "replaced", "merged", "copied"])
def test_a_weight_that_changed_since_is_not_taken_from_its_packed_form(toy, change):
    model = frozen(toy)
    hsam.pack_linears(model, BATCH)
    layer = next(lora_layers(model))
    torch.nn.init.normal_(layer.b_q)
    if change == "written to":
        layer.weight.mul_(2)
    elif change == "replaced":
        layer.weight.data = layer.weight + 1
    elif change == "merged":
        hsam.merge_lora(model)
    else:
        layer = next(lora_layers(copy.deepcopy(model)))
        assert layer.packed is None
    x = torch.rand(ROWS, layer.in_features)
    with torch.no_grad():
        expected = F.linear(x, layer.weight, layer.bias)
        assert torch.equal(layer.product(x), expected)


def test_trained_weights_and_models_without_an_encoder_are_left_alone(toy):
    model = toy()
    before = sum(
        not layer.weight.requires_grad
        for layer in model.image_encoder.blocks.modules()
        if isinstance(layer, torch.nn.Linear)
    )
    if torch.backends.mkl.is_available():
        assert hsam.pack_linears(model, BATCH) == before
    assert hsam.pack_linears(hsam.build("unet", image_size=32, num_classes=2), BATCH) == 0

import torch

from hsam import sam
from hsam.class_mlps import ClassMLPs, class_masks
from tests.hsam.seeded import seeded


def test_equals_separate_mlps():
    batched = ClassMLPs(classes=3, width=8, out=5, layers=4)
    tokens = seeded("tokens", (2, 3, 8))
    for index in range(3):
        single = sam.MLP(8, 8, 5, 4)
        for k, layer in enumerate(single.layers):
            layer.weight.data = batched.weights[k][index]
            layer.bias.data = batched.biases[k][index]
        torch.testing.assert_close(batched(tokens)[:, index], single(tokens[:, index]))


def test_starts_as_linear_layers_do():
    weight = ClassMLPs(9, 256, 32, 3).weights[0]
    assert 0.99 / 16 < weight.abs().max() <= 1 / 16


def test_masks_are_dot_products():
    weights, features = seeded("w", (2, 3, 4)), seeded("f", (2, 4, 5, 6))
    expected = torch.einsum("bck,bkhw->bchw", weights, features)
    torch.testing.assert_close(class_masks(weights, features), expected)

import torch

from hsam import sam
from hsam.norm import LayerNorm2d
from tests.hsam.seeded import seeded


def test_equals_sams():
    ours, theirs = LayerNorm2d(6), sam.LayerNorm2d(6)
    with torch.no_grad():
        ours.weight.copy_(seeded("weight", (6,)))
        ours.bias.copy_(seeded("bias", (6,)))
    theirs.load_state_dict(ours.state_dict())
    x = seeded("x", (2, 6, 4, 5)) * 8 + 3
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)

"""Weights for the toy backbone that `conftest.py` registers."""

import torch

from hsam.backbones import WeightFile, sam_vit
from hsam.builders import build_hsam
from tests.hsam.seeded import seeded

# two blocks, one in windows of 3 patches, one global
TOY = sam_vit(
    48,
    2,
    2,
    (1,),
    WeightFile("toy.pth", "https://example.org/toy.pth", 1, "0" * 64, "none", "nothing"),
    window=3,
    width=32,
    decoder_heads=2,
)


def sam_state(size: int = 128) -> dict[str, torch.Tensor]:
    """What a SAM checkpoint of the toy backbone would hold, made for `size` px."""
    model = build_hsam("toy", image_size=size, num_classes=3, lora_rank=0)
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith(("image_encoder.", "prompt_encoder.")):
            state[name] = seeded(name, tuple(tensor.shape))
        elif name.startswith("coarse_decoder.") and ".class_mlps." not in name:
            name = name.replace("coarse_decoder.", "mask_decoder.")
            state[name] = seeded(name, tuple(tensor.shape))
    for index in range(4):
        name = f"mask_decoder.output_hypernetworks_mlps.{index}.layers.0.weight"
        state[name] = seeded(name, (32, 32))
    return state


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Replace every tensor by a seeded one, so that none of them is zero."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(seeded(name, tuple(tensor.shape)))
    return model

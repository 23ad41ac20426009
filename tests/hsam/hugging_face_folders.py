"""Small seeded encoders in Hugging Face form, as transformers' own classes save them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch


def transformers() -> Any:
    """The package, without its progress bars; a test that needs it is skipped where it isn't."""
    package = pytest.importorskip("transformers")
    package.utils.logging.disable_progress_bar()
    return package


def _saved(model: Any, folder: Path) -> Any:
    """Save a model with seeded weights, none of them zero or one."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return model.eval()


def dinov3(folder: Path, **changes: Any) -> Any:
    """DINOv3 with two blocks and four registers; gives transformers' model."""
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_register_tokens": 4,
    }
    package = transformers()
    config = package.DINOv3ViTConfig(**sizes | changes)
    return _saved(package.DINOv3ViTModel(config), folder)


def dinov2(folder: Path, **changes: Any) -> Any:
    """DINOv2 with two blocks, patches of 14 pixels, positions of an 8 x 8 grid."""
    package = transformers()
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 112}
    return _saved(package.Dinov2Model(package.Dinov2Config(**sizes | changes)), folder)


def sam2(folder: Path, whole: bool = False) -> Any:
    """SAM 2's encoder with five blocks; with `whole`, saved within a whole SAM 2."""
    package = transformers()
    hiera = package.Sam2HieraDetConfig(
        hidden_size=16,
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[16, 32, 64, 128],
        num_attention_heads_per_stage=[1, 1, 2, 4],
        global_attention_blocks=[3],
    )
    vision = package.Sam2VisionConfig(
        backbone_config=hiera, backbone_channel_list=[128, 64, 32, 16]
    )
    if not whole:
        return _saved(package.Sam2VisionModel(vision), folder)
    return _saved(
        package.Sam2Model(package.Sam2Config(vision_config=vision)), folder
    ).vision_encoder


def edit_json(path: Path, **changes: Any) -> None:
    """Change values of a JSON file, which is written if there is none; None removes a key."""
    values = json.loads(path.read_text()) if path.is_file() else {}
    values = {key: value for key, value in {**values, **changes}.items() if value is not None}
    path.write_text(json.dumps(values))

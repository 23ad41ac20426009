"""What a folder in Hugging Face form says, without transformers: sizes, refusals, names."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hsam import hugging_face
from hsam.backbones import get_backbone

DINO3 = {
    "model_type": "dinov3_vit",
    "patch_size": 16,
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_register_tokens": 4,
    "transformers_version": "4.56.0",
}


def folder(path: Path, config: object, **preprocessor: object) -> str:
    """A folder with a config.json; its name as a backbone."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if preprocessor:
        (path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return f"hf:{path}"


def test_sizes_come_from_the_config(tmp_path):
    line = get_backbone(folder(tmp_path, DINO3))
    assert (line.stride, line.side_multiple, line.features, line.width) == (16, 16, 384, 256)
    assert line.sizes["first_patch"] == 5
    assert line.mean == (0.485, 0.456, 0.406)
    assert line.pretrained
    small = {"model_type": "dinov2", "hidden_size": 96, "patch_size": 14}
    line = get_backbone(folder(tmp_path, small, image_mean=[0.5] * 3, image_std=[0.25] * 3))
    assert (line.stride, line.side_multiple, line.features) == (14, 14, 96)
    assert (line.mean, line.std) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "sam2_vision_model"},
        {"model_type": "sam2_video", "vision_config": {"fpn_hidden_size": 256}},
    ],
)
def test_sam2s_coarsest_map_has_a_sixteenth_of_the_side(tmp_path, config):
    line = get_backbone(folder(tmp_path, config))
    assert (line.stride, line.side_multiple, line.features) == (16, 32, 256)


def test_only_what_describes_the_encoder_counts(tmp_path):
    name = folder(tmp_path, DINO3)
    before = get_backbone(name)
    folder(tmp_path, DINO3 | {"transformers_version": "6.0", "dtype": "bfloat16"})
    assert get_backbone(name).essence() == before.essence()
    folder(tmp_path, DINO3 | {"rope_theta": 50.0})
    assert get_backbone(name).essence() != before.essence()
    # a model that was built before doesn't ask the folder
    assert get_backbone("hf:gone", before.hugging_face) == before


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DINO3 | {"model_type": "resnet"}, "model_type dinov2, .* found 'resnet'"),
        ({}, "found None"),
        (DINO3 | {"patch_size": "16"}, "the sizes of a DINOv3 encoder .* got '16'"),
        (DINO3 | {"patch_size": [16, 8]}, r"got \[16, 8\]"),
        (DINO3 | {"num_channels": 1}, "num_channels other than 3"),
        ({"model_type": "sam2", "vision_config": {"backbone_config": 3}}, "sizes of a Hiera"),
        ([1], "expected a mapping, found list"),
    ],
)
def test_other_configs_are_refused(tmp_path, config, message):
    name = folder(tmp_path, config)
    with pytest.raises(ValueError, match=message):
        get_backbone(name)


def test_what_is_no_json_is_refused(tmp_path):
    name = folder(tmp_path, DINO3)
    with pytest.raises(ValueError, match="sizes of .* found others"):
        get_backbone(folder(tmp_path, DINO3, image_mean=[0.5, "x", 1]))
    with pytest.raises(ValueError, match="found others"):
        get_backbone(folder(tmp_path, DINO3, image_std=[0.5, 0.5, 0]))
    (tmp_path / "preprocessor_config.json").unlink()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json: can't be read as JSON"):
        get_backbone(name)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config.json: expected the description .* no file"):
        get_backbone(name)


def test_missing_models_are_named_with_what_fetches_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="there is no folder /gone/away"):
        get_backbone("hf:/gone/away")
    with pytest.raises(ValueError, match="`hf download someone/encoder config.json"):
        get_backbone("hf:someone/encoder")
    with pytest.raises(ValueError, match="or hf:FOLDER, got 'vit_x'"):
        get_backbone("vit_x")


def test_a_hub_name_is_found_in_the_hubs_cache(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    root = tmp_path / "models--someone--encoder"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("0" * 40)
    (root / "snapshots").mkdir()
    folder(root / "snapshots" / ("0" * 40), DINO3)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert get_backbone("hf:someone/encoder").features == 384


def test_weights_are_one_safetensors_file(tmp_path):
    for name, message in {
        "pytorch_model.bin": "found pytorch_model.bin, which may run code",
        "model.safetensors.index.json": "found weights in several files",
    }.items():
        with pytest.raises(ValueError, match="expected model.safetensors in .* found none"):
            hugging_face.weights_file(tmp_path)
        (tmp_path / name).write_text("{}")
        with pytest.raises(ValueError, match=message):
            hugging_face.weights_file(f"hf:{tmp_path}")
        (tmp_path / name).unlink()
    (tmp_path / "model.safetensors").write_text("x")
    assert hugging_face.weights_file(tmp_path) == tmp_path / "model.safetensors"


def test_a_folder_is_read_without_pytorch(tmp_path):
    name = folder(tmp_path, DINO3)
    code = (
        "import sys; from hsam.backbones import get_backbone; "
        f"print(get_backbone({name!r}).stride, 'torch' in sys.modules, "
        "'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "16 False False\n"

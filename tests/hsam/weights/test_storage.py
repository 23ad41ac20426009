import json

import pytest
import safetensors.torch
import torch

import hsam
from tests.hsam.seeded import seeded_image
from tests.hsam.toys import randomise, sam_state

IMAGE = seeded_image(1, 64)
INTENSITY = {"kind": "window", "low": -125, "high": 275}


@pytest.fixture
def trained(toy_sam_file):
    """A model on a SAM file whose trained tensors have moved."""
    model = hsam.build_hsam("toy", image_size=64, num_classes=3, sam_checkpoint=toy_sam_file)
    with torch.no_grad():
        for parameter in model.trainable_parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def same(first, second) -> bool:
    with torch.no_grad():
        return torch.equal(first(IMAGE).fine_logits, second(IMAGE).fine_logits)


def test_round_trip(trained, toy_sam_file, tmp_path):
    hsam.save(trained, tmp_path / "run", class_names=["a", "b", "c"], intensity=INTENSITY)
    loaded = hsam.load(tmp_path / "run", sam_checkpoint=toy_sam_file)
    assert same(loaded, trained) and not loaded.training
    assert loaded.config == trained.config


def test_frozen_encoder_is_not_stored(trained, tmp_path):
    hsam.save(trained, tmp_path)
    names = set(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    encoder = {name for name in names if name.startswith("image_encoder.")}
    assert encoder == {
        f"image_encoder.blocks.{block}.attn.qkv.{part}"
        for block in range(2)
        for part in ("a_q", "a_v", "b_q", "b_v")
    }
    trainable = {name for name, p in trained.named_parameters() if p.requires_grad}
    assert names >= trainable


def test_record_says_everything(trained, tmp_path):
    hsam.save(trained, tmp_path, class_names=["a", "b", "c"], intensity=INTENSITY)
    record = json.loads((tmp_path / "model.json").read_text())
    assert record == hsam.read_record(tmp_path)
    assert record["class_names"] == ["a", "b", "c"]
    assert record["intensity"] == INTENSITY
    assert record["sam_sha256"] == trained.sam_sha256
    assert record["hsam_version"] == hsam.__version__
    assert record["config"] == {
        "model": "hsam",
        "backbone": "toy",
        "image_size": 64,
        "num_classes": 3,
        "lora_rank": 4,
        "lora_scale": 1.0,
        "mask_attention": True,
        "pixel_decoder": True,
        "cm_attention": True,
        "gate": "spatial",
        "embedding_noise": 0.2,
        "train_encoder": False,
        "checkpoint_blocks": False,
        "encoder_size": None,
        "normalise": False,
    }


@pytest.mark.parametrize("name", ["hsam", "samed", "sam_adapter", "autosam"])
def test_every_model_on_sam_round_trips(name, toy_sam_file, tmp_path):
    model = hsam.build(name, backbone="toy", image_size=64, sam_checkpoint=toy_sam_file).eval()
    hsam.save(model, tmp_path)
    loaded = hsam.load(tmp_path, sam_checkpoint=toy_sam_file)
    with torch.no_grad():
        assert torch.equal(loaded(IMAGE).logits(), model(IMAGE).logits())


@pytest.mark.parametrize("backbone", ["vit_tiny", "toy"])
def test_model_without_sam_file_is_stored_whole(backbone, tmp_path):
    model = randomise(hsam.build_hsam(backbone, image_size=64)).eval()
    hsam.save(model, tmp_path)
    assert same(hsam.load(tmp_path), model)


def test_switches_survive(tmp_path):
    switches = {"mask_attention": False, "cm_attention": False, "pixel_decoder": False}
    model = randomise(hsam.build_hsam("toy", image_size=64, lora_rank=2, **switches)).eval()
    hsam.save(model, tmp_path)
    assert same(hsam.load(tmp_path), model)


def test_imported_gate_survives(toy, tmp_path):
    hsam.save(toy(gate="constant"), tmp_path)
    assert hsam.load(tmp_path).fine_decoder.cm_attention.gate == "constant"


def test_saving_again_replaces(toy, tmp_path):
    model = toy().eval()
    hsam.save(model, tmp_path)
    with torch.no_grad():
        model.fine_decoder.mask_tokens.weight.add_(1)
    hsam.save(model, tmp_path)
    assert same(hsam.load(tmp_path), model)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


def test_same_model_gives_the_same_bytes(toy, tmp_path):
    for name in "ab":
        hsam.save(toy(), tmp_path / name)
    for file in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_missing_sam_file_is_told(trained, tmp_path):
    hsam.save(trained, tmp_path / "run")
    with pytest.raises(ValueError, match=f"SHA-256 {trained.sam_sha256}, got none"):
        hsam.load(tmp_path / "run")


def test_other_sam_file_is_refused(trained, tmp_path):
    hsam.save(trained, tmp_path / "run")
    other = tmp_path / "other.pth"
    torch.save(sam_state(64), other)
    with pytest.raises(ValueError, match=f"expected SHA-256 {trained.sam_sha256}, got "):
        hsam.load(tmp_path / "run", sam_checkpoint=other)


def test_merged_model_is_refused(toy, tmp_path):
    model = toy().eval()
    hsam.merge_lora(model)
    with pytest.raises(ValueError, match="expected an unmerged LoRA"):
        hsam.save(model, tmp_path)


def test_wrong_number_of_names_is_refused(toy, tmp_path):
    with pytest.raises(ValueError, match="class_names: expected 3, got 1"):
        hsam.save(toy(), tmp_path, class_names=["liver"])


def test_tampered_tensors_are_told(toy, tmp_path):
    hsam.save(toy(), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    del tensors["fine_decoder.mask_tokens.weight"]
    tensors["extra"] = torch.zeros(1)
    tensors["coarse_decoder.iou_token.weight"] = torch.zeros(2)
    safetensors.torch.save_file(tensors, file)
    with pytest.raises(ValueError) as error:
        hsam.load(tmp_path)
    assert "missing fine_decoder.mask_tokens.weight" in str(error.value)
    assert "unexpected extra" in str(error.value)
    assert "iou_token.weight: expected (1, 32), got (2,)" in str(error.value)


def test_missing_folder_and_unknown_format_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="found none"):
        hsam.load(tmp_path / "nowhere")
    (tmp_path / "model.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="expected format 1, got 99"):
        hsam.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: [],
        lambda record: None,
        lambda record: record | {"config": None},
        lambda record: {k: v for k, v in record.items() if k != "needs_sam_checkpoint"},
        lambda record: record | {"config": record["config"] | {"gaet": "spatial"}},
        lambda record: record | {"config": record["config"] | {"image_size": "64"}},
        lambda record: record | {"config": {}},
        lambda record: record | {"sam_sha256": 3},
        lambda record: record | {"pretraining": {}},
    ],
)
def test_a_damaged_record_is_told(toy, tmp_path, change):
    path = hsam.save(toy(), tmp_path) / "model.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(ValueError, match="model.json"):
        hsam.load(tmp_path)


def test_trained_part_of_vit_b_is_megabytes():
    with torch.device("meta"):
        model = hsam.build_hsam("vit_b", image_size=224)
    assert model.count_trainable() * 4 < 60e6


def test_weights_with_nan_are_refused(trained, toy_sam_file, tmp_path):
    hsam.save(trained, tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    name = "coarse_decoder.mask_tokens.weight"
    tensors[name][0, 0] = float("nan")
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(ValueError, match=f"found NaN or infinity in {name}"):
        hsam.load(tmp_path, sam_checkpoint=toy_sam_file)


def test_a_pointer_of_git_lfs_is_named(trained, toy_sam_file, tmp_path):
    hsam.save(trained, tmp_path)
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="a pointer of Git LFS"):
        hsam.load(tmp_path, sam_checkpoint=toy_sam_file)

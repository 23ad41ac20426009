"""The models by name, and the rivals."""

import importlib
import inspect
import subprocess
import sys
from dataclasses import fields

import pytest
import torch

import hsam
from hsam.adapted_encoder import EncoderOptions
from tests.hsam.seeded import seeded_image

RIVALS = ["samed", "sam_adapter", "autosam"]


def build(name, **arguments):
    arguments = {"image_size": 64, "num_classes": 3} | arguments
    return hsam.build(name, **arguments if name == "unet" else {"backbone": "toy"} | arguments)


def need(name):
    if name == "unet":
        pytest.importorskip("monai")


@pytest.mark.parametrize("name", hsam.MODELS)
def test_every_model_trains_and_runs(name, batch):
    need(name)
    model = build(name)
    image, labels = batch
    optimiser = torch.optim.AdamW(model.trainable_parameters(), 1e-3)
    loss = hsam.two_stage_loss(model(image, labels), labels, 0.4)
    loss.total.backward()
    assert all(p.grad is not None for p in model.trainable_parameters())
    optimiser.step()
    with torch.no_grad():
        assert model.eval()(image).logits().shape == (2, 4, 64, 64)
    assert model.config["model"] == name


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("samed", 4_773_760),
        ("sam_adapter", 11_727_232),
        ("autosam", 4_626_304),
        ("unet", 1_979_273),
    ],
)
def test_trainable_counts_are_those_stated(name, count):
    need(name)
    sizes = {"image_size": 224, "num_classes": 8}
    with torch.device("meta"):
        model = hsam.build(name, **sizes)
    assert model.count_trainable() == count
    module = importlib.import_module(hsam.MODELS[name].module)
    assert f"{count:,}" in module.__doc__


@pytest.mark.parametrize("name", RIVALS)
def test_one_stage_models_have_no_fine_stage(name):
    output = build(name).eval()(seeded_image(1, 64))
    assert output.coarse_logits.shape == (1, 4, 16, 16)
    assert torch.equal(output.logits("mean"), output.logits("coarse"))
    with pytest.raises(ValueError, match="this model has no fine stage"):
        output.logits("fine")


def test_unet_has_no_coarse_stage():
    need("unet")
    output = build("unet").eval()(seeded_image(1, 64))
    assert torch.equal(output.logits("mean"), output.fine_logits)
    with pytest.raises(ValueError, match="this model has no coarse stage"):
        output.logits("coarse")


def trained_encoder_names(model):
    return {n for n, p in model.image_encoder.named_parameters() if p.requires_grad}


def test_samed_trains_lora_alone_in_the_encoder():
    names = trained_encoder_names(build("samed"))
    assert len(names) == 8 and all(".qkv." in name for name in names)


def test_sam_adapter_trains_adapters_alone_in_the_encoder():
    names = trained_encoder_names(build("sam_adapter"))
    assert len(names) == 16 and all(".adapter_" in name for name in names)


def test_autosam_trains_nothing_in_the_encoder():
    assert not trained_encoder_names(build("autosam"))


def test_fresh_adapters_change_nothing():
    torch.manual_seed(0)
    plain = build("autosam").eval()
    adapted = build("sam_adapter").eval()
    adapted.load_state_dict(plain.state_dict(), strict=False)
    image = seeded_image(1, 64)
    assert torch.equal(plain(image).coarse_logits, adapted(image).coarse_logits)


def test_samed_is_sams_order_of_attention(toy):
    # the same weights give other logits than H-SAM's first stage
    samed, hsam_model = build("samed").eval(), toy().eval()
    samed.load_state_dict(hsam_model.state_dict(), strict=False)
    image = seeded_image(1, 64)
    difference = samed(image).coarse_logits - hsam_model(image).coarse_logits
    assert difference.abs().max() > 0.01


@pytest.mark.parametrize("name", hsam.MODELS)
def test_the_table_names_every_argument_and_stage_of_a_model(name):
    need(name)
    entry = hsam.MODELS[name]
    taken = inspect.signature(entry.load_builder()).parameters
    names = set(taken)
    if "encoder" in names:
        options = {field.name for field in fields(EncoderOptions)}
        names = names - {"encoder"} | options - {"hugging_face"}  # which comes from a folder
    assert names == {"image_size", "num_classes", *entry.takes, *entry.options}
    for option, about in entry.options.items():
        assert taken[option].default == about.default
        assert about.problem(about.default) is None
    output = build(name).eval()(seeded_image(1, 64))
    given = tuple(s for s in ("coarse", "fine") if getattr(output, f"{s}_logits") is not None)
    assert given == entry.stages


def test_names_are_known_without_pytorch():
    code = "import hsam, sys; hsam.MODELS; hsam.backbones(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_exported_name_is_there():
    assert all(getattr(hsam, name) is not None for name in hsam.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hsam.nothing  # noqa: B018


def test_unknown_model_and_argument_are_refused():
    with pytest.raises(ValueError, match="model: expected one of .*got 'sam2'"):
        hsam.build("sam2")
    with pytest.raises(TypeError, match="lora_rank"):
        hsam.build("autosam", lora_rank=4)
    with pytest.raises(ValueError, match="adapter_ratio: .*got 0"):
        build("sam_adapter", adapter_ratio=0)


def test_small_images_and_widths_are_refused_by_unet():
    need("unet")
    with pytest.raises(ValueError, match="multiple of 16 from 32, got 16"):
        build("unet", image_size=16)
    with pytest.raises(ValueError, match="features: expected 6 widths, got 2"):
        build("unet", features=(8, 8))

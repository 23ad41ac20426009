"""Adapter files of the published H-SAM code, made for the toy backbone."""

from itertools import product

import pytest
import torch

import hsam
from hsam.lora import lora_layers
from tests.hsam.seeded import seeded, seeded_image
from tests.hsam.toys import randomise


@pytest.fixture
def source(toy):
    return toy(num_classes=2, gate="constant").eval()


def published_state(model) -> dict[str, torch.Tensor]:
    """A model's tensors under the names of the published code, with what that code adds."""
    state, renamed = model.state_dict(), {}
    for index, (block, projection) in enumerate(product(range(2), "qv")):
        for half in "ab":
            name = f"image_encoder.blocks.{block}.attn.qkv.{half}_{projection}"
            renamed[f"w_{half}_{index:03d}"] = state[name]
    for name, tensor in state.items():
        if name.startswith("prompt_encoder."):
            renamed[name] = renamed[name.replace("encoder", "encoder2", 1)] = tensor
        elif ".class_mlps." in name:
            decoder, _, kind, layer = name.split(".")
            number = "2" if decoder == "fine_decoder" else ""
            end = f"layers.{layer}.{'weight' if kind == 'weights' else 'bias'}"
            for k in range(model.classes):
                key = f"mask_decoder{number}.output_hypernetworks_mlps{number}.{k}.{end}"
                renamed[key] = tensor[k]
        elif not name.startswith("image_encoder."):
            for old, new in (
                ("coarse_decoder.", "mask_decoder."),
                ("fine_decoder.transformer.", "mask_decoder2.transformer2."),
                ("fine_decoder.cm_attention.select.", "mask_decoder2.med_sel.0."),
                ("fine_decoder.cm_attention.", "mask_decoder2."),
                ("fine_decoder.pixel_decoder.", "mask_decoder2."),
                ("fine_decoder.", "mask_decoder2."),
            ):
                if name.startswith(old):
                    renamed[new + name.removeprefix(old)] = tensor
                    break
    dead = "mask_decoder2.transformer2.layers.0.cross_attn_token_to_image.norm1"
    renamed[f"{dead}.weight"], renamed[f"{dead}.bias"] = torch.ones(16), torch.zeros(16)
    renamed["prompt_encoder.point_embeddings.10.weight"] = torch.zeros(1, 32)
    return renamed


@pytest.fixture
def write(tmp_path):
    def to_file(state):
        path = tmp_path / "adapter.pth"
        torch.save(state, path)
        return path

    return to_file


def target(source, **arguments):
    """A model to load into; with no other arguments its frozen encoder is that of `source`."""
    model = hsam.build_hsam("toy", **{"image_size": 64, "num_classes": 2} | arguments)
    if not arguments:
        model.image_encoder.load_state_dict(source.image_encoder.state_dict())
        for layer in lora_layers(model):
            torch.nn.init.zeros_(layer.a_q)
    return model


def test_file_gives_the_same_function(source, write):
    model = target(source)
    hsam.load_published_adapter(model, write(published_state(source)))
    image = seeded_image(1, 64)
    found, expected = model.eval()(image), source(image)
    assert torch.equal(found.coarse_logits, expected.coarse_logits)
    assert torch.equal(found.fine_logits, expected.fine_logits)


def test_gate_becomes_constant(source, write):
    model = target(source)
    assert model.fine_decoder.cm_attention.gate == "spatial"
    hsam.load_published_adapter(model, write(published_state(source)))
    assert model.fine_decoder.cm_attention.gate == model.config["gate"] == "constant"


def test_every_name_is_accounted_for(source, write):
    state = published_state(source)
    report = hsam.load_published_adapter(target(source), write(state))
    own = [n for n in source.state_dict() if not n.startswith("image_encoder.")]
    unread = [n for n in own if "point_embeddings" in n]
    assert set(report.loaded) >= set(own) - set(unread)
    assert set(report.new) <= set(unread)
    dead = [key for key in state if "norm1" in key and "cross_attn" in key]
    points = [key for key in state if "point_embeddings" in key]
    assert sorted(report.unused) == sorted(dead + points)


def test_real_names_are_all_accounted_for(published_keys, write):
    state = {
        key: seeded(key.replace("encoder2.", "encoder."), tuple(shape))
        for key, shape in published_keys[1].items()
    }
    model = hsam.build_hsam("vit_b", image_size=224, num_classes=8)
    report = hsam.load_published_adapter(model, write(state))
    assert all("point_embeddings" in name for name in report.new)
    assert len(report.unused) == 22 + 24  # point embeddings twice, dead norms of four attentions


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 3}, "classes with background 4, image size 64|classes with background 4"),
        ({"image_size": 80}, "image size 80"),
        ({"lora_rank": 2}, "LoRA rank 2"),
        ({"lora_rank": 0}, "LoRA rank 0"),
    ],
)
def test_file_for_another_model_is_refused(source, write, arguments, message):
    path = write(published_state(source))
    with pytest.raises(ValueError, match=message) as error:
        hsam.load_published_adapter(target(source, **arguments), path)
    assert (
        "this one is for backbone toy (48 wide, 2 deep), LoRA rank 4, image size 64, "
        "classes with background 3" in str(error.value)
    )


def test_file_for_another_backbone_is_refused(source, write):
    model = hsam.build_hsam("vit_tiny", image_size=64, num_classes=2)
    with pytest.raises(ValueError, match="for backbone vit_tiny.*this one is for backbone toy"):
        hsam.load_published_adapter(model, write(published_state(source)))


def test_missing_and_unexpected_names_are_all_told(source, write):
    state = published_state(source)
    del state["w_b_001"], state["mask_decoder2.mask_tokens.weight"]
    state["extra"] = state["mask_decoder2.extra"] = torch.zeros(1)
    model = target(source)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError) as error:
        hsam.load_published_adapter(model, write(state))
    for text in (
        "missing image_encoder.blocks.0.attn.qkv.b_v",
        "missing fine_decoder.mask_tokens.weight",
        "unexpected extra",
        "unexpected fine_decoder.extra",
    ):
        assert text in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_twins_that_differ_are_refused(source, write):
    state = published_state(source)
    state["prompt_encoder2.no_mask_embed.weight"] = torch.ones(1, 32)
    with pytest.raises(ValueError, match="prompt_encoder2.no_mask_embed.weight: expected the same"):
        hsam.load_published_adapter(target(source), write(state))


def test_missing_class_is_told(source, write):
    state = published_state(source)
    del state["mask_decoder.output_hypernetworks_mlps.1.layers.0.weight"]
    with pytest.raises(ValueError, match=r"expected one MLP per class, got classes \[0, 2\]"):
        hsam.load_published_adapter(target(source), write(state))


@pytest.mark.parametrize("part", ["mask_attention", "pixel_decoder", "cm_attention"])
def test_model_without_a_part_is_refused(source, write, part):
    with pytest.raises(ValueError, match="expected all three parts of stage 2"):
        hsam.load_published_adapter(target(source, **{part: False}), write(published_state(source)))


def test_other_models_and_files_are_refused(source, write):
    samed = hsam.build("samed", backbone="toy", image_size=64)
    with pytest.raises(ValueError, match="model: expected H-SAM, got OneStage"):
        hsam.load_published_adapter(samed, write(published_state(source)))
    with pytest.raises(ValueError, match="expected an adapter file of the published H-SAM code"):
        hsam.load_published_adapter(randomise(target(source)), write({"a": torch.zeros(1)}))

"""Encoders in Hugging Face form: transformers' own outputs, LoRA, loading, the decoders behind."""

import hashlib
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

import hsam
from hsam.backbones import get_backbone
from hsam.lora import add_lora, lora_layers, merge_lora
from hsam.losses import two_stage_loss
from tests.hsam import hugging_face_folders as folders
from tests.hsam.seeded import seeded_image

# side E that each encoder takes, its grid G and the side S of the slices
ENCODERS = {
    "dinov3": (folders.dinov3, 64, 4, 64),
    "dinov2": (folders.dinov2, 56, 4, 64),
    "sam2": (folders.sam2, 64, 4, 64),
}


@pytest.fixture(params=ENCODERS)
def kind(request):
    return request.param


@pytest.fixture
def saved(kind, tmp_path):
    """The backbone's name, and transformers' own model."""
    own = ENCODERS[kind][0](tmp_path / "encoder")
    return f"hf:{tmp_path / 'encoder'}", own


def encoder(name: str, side: int, **arguments):
    line = get_backbone(name)
    built = line.load_family()(line, side, **arguments)
    built.load_file(hsam.hugging_face.weights_file(name))
    return built


def build(name: str, model: str = "hsam", **arguments):
    sides = {"image_size": 64, "encoder_size": 56 if get_backbone(name).stride == 14 else None}
    return hsam.build(model, backbone=name, num_classes=2, **sides | arguments)


def own_embedding(kind: str, own, image: torch.Tensor) -> torch.Tensor:
    """The embedding in what transformers' model gives, by its documentation."""
    output = own(pixel_values=image)
    if kind == "sam2":
        return output.fpn_hidden_states[-1]
    first = 1 + getattr(own.config, "num_register_tokens", 0)
    rows = output.last_hidden_state[:, first:].unflatten(1, (4, 4))  # B x G x G x D
    return rows.permute(0, 3, 1, 2)


@torch.no_grad()
def test_embedding_is_transformers_own(kind, saved):
    name, own = saved
    side, grid = ENCODERS[kind][1:3]
    image = seeded_image(1, side)
    for normalise in (False, True):
        found = encoder(name, side, normalise=normalise).train()(image)
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        seen = (image - mean.view(3, 1, 1)) / std.view(3, 1, 1) if normalise else image
        assert found.shape[2:] == (grid, grid)
        torch.testing.assert_close(found, own_embedding(kind, own, seen), rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_patches_lie_as_the_pixels_do(tmp_path):
    name = f"hf:{tmp_path}"
    folders.dinov3(tmp_path, num_hidden_layers=1)
    model = encoder(name, 64)
    image = torch.zeros(1, 3, 64, 64)
    changed = image.clone()
    changed[..., 16:32, 48:64] = 1  # the patch in row 1, column 3
    difference = (model(changed) - model(image)).abs().sum(1)[0]
    assert divmod(int(difference.argmax()), 4) == (1, 3)


@torch.no_grad()
def test_sam2s_encoder_is_taken_out_of_a_whole_model(tmp_path):
    own = folders.sam2(tmp_path, whole=True)
    image = seeded_image(1, 96)
    found = encoder(f"hf:{tmp_path}", 96)(image)
    assert found.shape == (1, 256, 6, 6)
    torch.testing.assert_close(found, own(image).fpn_hidden_states[-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("make", "side"), [(folders.dinov2, 64), (folders.sam2, 80)])
def test_wrong_sides_are_refused(tmp_path, make, side):
    make(tmp_path)
    with pytest.raises(ValueError, match=f"a positive multiple of .*, got {side}"):
        encoder(f"hf:{tmp_path}", side)


@torch.no_grad()
def test_lora_changes_queries_and_values_alone(kind, saved):
    name, _ = saved
    side = ENCODERS[kind][1]
    model = encoder(name, side).eval()
    image = seeded_image(1, side)
    plain = model(image)
    add_lora(model, rank=2)
    assert torch.equal(model(image), plain)
    layers = list(lora_layers(model))
    assert len(layers) == {"dinov3": 4, "dinov2": 4, "sam2": 5}[kind]
    for layer in layers:
        for part in layer.adapted:
            layer.get_parameter(f"b_{part}").normal_(generator=torch.Generator().manual_seed(1))
        thirds = layer.delta().chunk(len(layer.parts))
        assert [bool(third.any()) for third in thirds] == [part in "qv" for part in layer.parts]
    keys = [m for n, m in model.named_modules() if n.rpartition(".")[2] in ("k_proj", "key")]
    assert len(keys) == (0 if kind == "sam2" else 2)
    assert not any(isinstance(module, hsam.lora.LoRA) for module in keys)
    found = model(image)
    assert not torch.allclose(found, plain)
    merge_lora(model)
    torch.testing.assert_close(model(image), found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model", ["hsam", "samed"])
def test_a_step_trains_lora_neck_and_decoders_alone(kind, saved, model):
    name, _ = saved
    network = build(name, model)
    frozen = {k for k, p in network.named_parameters() if not p.requires_grad}
    assert {k for k in frozen if k.startswith("image_encoder.")} == network.pretrained & frozen
    before = {key: value.clone() for key, value in network.state_dict().items()}
    optimizer = torch.optim.SGD(network.trainable_parameters(), lr=0.1)
    labels = torch.randint(0, 3, (1, 64, 64), generator=torch.Generator().manual_seed(3))
    for _ in range(2):  # the first step moves b alone, as a has no gradient where b is zero
        loss = two_stage_loss(network(seeded_image(1, 64), labels), labels, 0.4)
        loss.total.backward()
        optimizer.step()
        optimizer.zero_grad()
    changed = {k for k, value in network.state_dict().items() if not torch.equal(value, before[k])}
    inside = {key for key in changed if key.startswith("image_encoder.")}
    assert inside and all(key.endswith((".a_q", ".b_q", ".a_v", ".b_v")) for key in inside)
    assert ("neck.0.weight" in changed) == (kind != "sam2")


@torch.no_grad()
def test_a_frozen_models_file_has_lora_neck_and_decoders(kind, saved, tmp_path):
    name, _ = saved
    network = build(name).eval()
    hsam.save(network, tmp_path / "run")
    stored = load_file(tmp_path / "run" / "model.safetensors")
    inside = [key for key in stored if key.startswith("image_encoder.")]
    assert inside and all(key.rpartition(".")[2] in ("a_q", "b_q", "a_v", "b_v") for key in inside)
    image = seeded_image(1, 64)
    expected = network(image).fine_logits
    assert torch.equal(hsam.load(tmp_path / "run")(image).fine_logits, expected)
    # the folder may lie elsewhere by then, even without its config
    shutil.move(tmp_path / "encoder", tmp_path / "moved")
    (tmp_path / "moved" / "config.json").unlink()
    with pytest.raises(ValueError, match="there is no folder"):
        hsam.load(tmp_path / "run")
    for place in (tmp_path / "moved", tmp_path / "moved" / "model.safetensors"):
        loaded = hsam.load(tmp_path / "run", sam_checkpoint=place)
        assert torch.equal(loaded(image).fine_logits, expected)


def test_other_weights_than_the_trainings_are_refused(tmp_path):
    folders.dinov3(tmp_path / "encoder")
    hsam.save(build(f"hf:{tmp_path / 'encoder'}"), tmp_path / "run")
    path = tmp_path / "encoder" / "model.safetensors"
    state = load_file(path)
    save_file({**state, "norm.bias": state["norm.bias"] + 1}, path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=f"expected SHA-256 .*, got {found}"):
        hsam.load(tmp_path / "run")


@torch.no_grad()
def test_a_trained_encoder_needs_its_folder_no_more(tmp_path):
    folders.dinov2(tmp_path / "encoder")
    network = build(f"hf:{tmp_path / 'encoder'}", train_encoder=True, lora_rank=0).eval()
    network.image_encoder.vision.layernorm.bias += 1
    hsam.save(network, tmp_path / "run")
    shutil.rmtree(tmp_path / "encoder")
    image = seeded_image(1, 64)
    loaded = hsam.load(tmp_path / "run")
    assert torch.equal(loaded(image).fine_logits, network(image).fine_logits)


def test_files_that_do_not_fit_are_refused(tmp_path):
    folders.dinov3(tmp_path)
    name, path = f"hf:{tmp_path}", tmp_path / "model.safetensors"
    state = load_file(path)
    save_file({k: v for k, v in state.items() if k != "norm.bias"}, path)
    with pytest.raises(ValueError, match="weights for DINOv3 .32 wide, 2 deep.: missing norm.bias"):
        build(name)
    save_file({**state, "norm.bias": torch.zeros(7)}, path)
    with pytest.raises(ValueError, match="another shape of norm.bias"):
        build(name)
    save_file({**state, "norm.bias": state["norm.bias"] * torch.nan}, path)
    with pytest.raises(ValueError, match="found NaN or infinity in norm.bias"):
        build(name)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="expected a safetensors file, can't read"):
        build(name)
    torch.save(state, path)
    with pytest.raises(ValueError, match="expected a safetensors file, can't read"):
        build(name)
    path.write_text("<html>")
    with pytest.raises(ValueError, match="is a web page"):
        build(name)
    path.unlink()
    with pytest.raises(ValueError, match="expected model.safetensors .* found none"):
        build(name)


def test_sizes_that_do_not_go_together_are_refused(tmp_path):
    folders.dinov3(tmp_path)
    folders.edit_json(tmp_path / "config.json", num_attention_heads=3)
    with pytest.raises(ValueError, match="can't build DINOv3"):
        build(f"hf:{tmp_path}")
    folders.edit_json(tmp_path / "config.json", num_attention_heads="many")
    with pytest.raises(ValueError, match="can't build DINOv3"):
        build(f"hf:{tmp_path}")


def test_recomputed_blocks_give_the_same_gradients(kind, saved):
    name, _ = saved
    side = ENCODERS[kind][1]
    gradients = []
    for recompute in (False, True):
        model = encoder(name, side, checkpoint_blocks=recompute).train()
        passes = []
        attention = next(m for m in model.modules() if type(m).__name__.endswith("Attention"))
        attention.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        model(seeded_image(1, side)).square().sum().backward()
        assert len(passes) == (2 if recompute else 1)
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


@torch.no_grad()
def test_an_embedding_of_before_gives_the_same_answer(kind, saved):
    network = build(saved[0]).eval()
    image = seeded_image(1, 64)
    embedding = network.embed(image)
    assert embedding.shape == (1, 256 if kind == "sam2" else 32, 4, 4)
    again = network(None, embedding=embedding)
    assert torch.equal(again.fine_logits, network(image).fine_logits)


@torch.no_grad()
def test_half_precision_keeps_the_answer(kind, saved):
    network, image = build(saved[0]).eval(), seeded_image(1, 64)
    expected = network.embed(image)
    half = hsam.for_inference(network, half_encoder=True)
    found = half.embed(image)
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
    similar = torch.nn.functional.cosine_similarity(found.flatten(), expected.flatten(), dim=0)
    assert similar > 0.99


def test_adapters_beside_blocks_are_for_sams_family(tmp_path):
    folders.dinov3(tmp_path)
    with pytest.raises(ValueError, match="expected one of SAM's family for sam_adapter, got hf:"):
        build(f"hf:{tmp_path}", "sam_adapter")

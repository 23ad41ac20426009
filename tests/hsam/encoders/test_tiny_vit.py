"""LiteMedSAM's encoder: its published forward pass, LoRA, loading, and the decoders behind it."""

import pytest
import torch

import hsam
from hsam.backbones import BACKBONES, Backbone, WeightFile
from hsam.encoders.tiny_vit import TinyViT
from hsam.lora import add_lora, lora_layers, merge_lora
from tests.hsam.seeded import seeded, seeded_image

# every 64th channel, 8th row and 8th column of what the published code computes at 96 px
PUBLISHED = """
-0.155287  0.986921  1.051049 -1.476023  0.254801 -0.515574 -1.926115 -1.677700 -0.715722
 1.115738  0.141303  0.696504  2.837880  2.080836  0.221295  3.062988  1.423377  2.187896
 1.326593 -0.014862  0.718128 -0.850075  0.254388 -1.139153  0.544962 -1.424171 -0.425657
-1.131404 -0.356445 -0.970527 -0.103950 -1.382104 -1.237160 -1.481268 -1.791848 -1.204609
"""
SMALL = Backbone(
    "hsam.encoders.tiny_vit:TinyViT",
    {"dims": (8, 16, 16, 24), "depths": (1, 1, 2, 1), "heads": (1, 2, 2, 3), "windows": (7,) * 4},
    WeightFile("small.pth", "https://example.org/small.pth", 1, "0" * 64, "none", "nothing"),
    stride=4,
    side_multiple=32,
    width=32,
    decoder_heads=2,
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(BACKBONES, "small", SMALL)


def seed(module: torch.nn.Module) -> torch.nn.Module:
    """Seeded weights; variances are positive."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                value = seeded(name, tuple(tensor.shape))
                tensor.copy_(value.abs() + 0.5 if name.endswith("running_var") else value)
    return module


def encoder(size: int = 64, **arguments) -> TinyViT:
    return seed(TinyViT(SMALL, size, **arguments)).eval()


@torch.no_grad()
def test_embedding_is_the_published_codes():
    model = seed(TinyViT(BACKBONES["litemedsam"], 96)).eval()
    found = model(seeded_image(1, 96))
    assert found.shape == (1, 256, 24, 24)
    expected = torch.tensor([float(number) for number in PUBLISHED.split()])
    torch.testing.assert_close(found[0, ::64, ::8, ::8].flatten(), expected, atol=2e-5, rtol=0)


def test_names_and_sizes_are_the_checkpoints():
    with torch.device("meta"):
        model = TinyViT(BACKBONES["litemedsam"], 256)
    state = model.state_dict()
    assert len(state) == 298
    assert sum(tensor.numel() for tensor in model.parameters()) == 5_726_740
    assert state["layers.2.blocks.5.attn.attention_biases"].shape == (5, 196)
    assert state["patch_embed.seq.2.bn.running_var"].shape == (64,)


@pytest.mark.parametrize("size", [0, 48, 100])
def test_wrong_size_is_refused(size):
    with pytest.raises(ValueError, match=f"multiple of 32, got {size}"):
        TinyViT(SMALL, size)


def test_training_changes_no_statistics():
    model = encoder().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert torch.equal(model(seeded_image(1, 64)), encoder()(seeded_image(1, 64)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_recomputed_blocks_give_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        model = encoder(checkpoint_blocks=recompute)
        model(seeded_image(1, 64)).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain)


def adapted() -> TinyViT:
    model = TinyViT(SMALL, 64)
    add_lora(model, rank=2)
    return seed(model).eval()


@torch.no_grad()
def test_lora_changes_queries_and_values_of_every_head_alone():
    model, plain = adapted(), encoder()
    assert len(list(lora_layers(model))) == 4
    layer = model.layers[3].blocks[0].attn.qkv
    x = torch.randn(5, 24)
    change = layer(x) - torch.nn.functional.linear(x, layer.weight, layer.bias)
    q, k, v = change.view(5, 3, 3, 8).unbind(2)  # as the attention reads it: heads, q k v, width
    assert not k.any()
    torch.testing.assert_close(q.flatten(1), x @ layer.a_q.T @ layer.b_q.T)
    torch.testing.assert_close(v.flatten(1), x @ layer.a_v.T @ layer.b_v.T)
    image = seeded_image(1, 64)
    found = model(image)
    assert not torch.allclose(found, plain(image))
    merge_lora(model)
    torch.testing.assert_close(model(image), found)


@torch.no_grad()
def test_normalised_images_have_the_pretrainings_range(make_encoder):
    image = seeded_image(1, 64)
    model = make_encoder(BACKBONES["toy"], 64)
    model.normalise = True
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    by_hand = (image - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    torch.testing.assert_close(model.normalised(image), by_hand)
    assert not torch.allclose(model(image), make_encoder(BACKBONES["toy"], 64)(image))


def checkpoint(tmp_path):
    """A file of LiteMedSAM's form for the small encoder."""
    model = hsam.build("samed", backbone="small", image_size=128, lora_rank=0)
    state = {
        name.replace("coarse_decoder.", "mask_decoder."): tensor
        for name, tensor in seed(model).state_dict().items()
        if ".class_mlps." not in name
    }
    torch.save(state, tmp_path / "small.pth")
    return tmp_path / "small.pth", state


def test_a_file_fits_every_side(tmp_path):
    path, state = checkpoint(tmp_path)
    model = hsam.build_hsam("small", image_size=64, num_classes=2, sam_checkpoint=path)
    found = model.state_dict()
    for name in state:
        kept = name.replace("mask_decoder.", "coarse_decoder.")
        if ".mask_tokens." not in name and ".iou_prediction_head." not in name:
            assert torch.equal(found[kept], state[name]), name
    assert model.sam_sha256 is not None


def test_a_file_of_another_family_is_refused(tmp_path, toy_sam_file):
    path, _ = checkpoint(tmp_path)
    wanted = r"expected weights for toy \(48 wide, 2 deep\), got those of a TinyViT \(24 wide"
    with pytest.raises(ValueError, match=wanted):
        hsam.build_hsam("toy", image_size=64, sam_checkpoint=path)
    with pytest.raises(ValueError, match=r"for a TinyViT .*, got those of toy \(48 wide"):
        hsam.build_hsam("small", image_size=64, sam_checkpoint=toy_sam_file)


@pytest.mark.parametrize("pixel_decoder", [True, False])
@pytest.mark.parametrize(
    ("image_size", "encoder_size", "coarse"), [(64, None, 64), (128, 64, 64), (128, 32, 32)]
)
def test_decoders_end_at_the_images_side(image_size, encoder_size, coarse, pixel_decoder):
    model = hsam.build_hsam(
        "small",
        image_size=image_size,
        encoder_size=encoder_size,
        num_classes=2,
        pixel_decoder=pixel_decoder,
    ).eval()
    output = model(seeded_image(1, image_size))
    assert output.coarse_logits.shape == (1, 3, coarse, coarse)
    assert output.fine_logits.shape == (1, 3, image_size, image_size)
    assert output.logits("coarse").shape == output.logits().shape == output.fine_logits.shape


def test_a_side_that_the_decoders_cannot_reach_is_refused():
    with pytest.raises(ValueError, match="32, 64 or 128, got 256"):
        hsam.build_hsam("small", image_size=256, encoder_size=32)


@torch.no_grad()
def test_a_model_takes_what_it_embedded_before():
    model = hsam.build_hsam("small", image_size=64, num_classes=2).eval()
    image = seeded_image(1, 64)
    embedding = model.embed(image)
    assert embedding.shape == (1, 32, 16, 16)
    again = model(None, embedding=embedding)
    assert torch.equal(again.fine_logits, model(image).fine_logits)
    with pytest.raises(ValueError, match="either images or their embedding"):
        model(image, embedding=embedding)
    with pytest.raises(ValueError, match="expected a grid of 16"):
        model(None, embedding=embedding[..., :8])


def test_a_fine_grid_shares_gates():
    model = hsam.build_hsam("small", image_size=256, num_classes=2).eval()
    attention = model.fine_decoder.cm_attention
    gate = attention(torch.randn(1, 3, 64 * 64)).view(64, 64)
    assert gate.mean().item() == pytest.approx(1, abs=1e-4)
    blocks = gate.view(32, 2, 32, 2).transpose(1, 2).flatten(2)
    assert torch.equal(blocks.amin(2), blocks.amax(2)) and gate.std() > 0


def test_a_saved_model_needs_its_file_again(tmp_path):
    path, _ = checkpoint(tmp_path)
    model = hsam.build_hsam("small", image_size=64, num_classes=2, sam_checkpoint=path).eval()
    hsam.save(model, tmp_path / "run")
    loaded = hsam.load(tmp_path / "run", sam_checkpoint=path)
    image = seeded_image(1, 64)
    assert torch.equal(loaded(image).fine_logits, model(image).fine_logits)


def test_adapters_beside_blocks_are_for_sams_family():
    with pytest.raises(ValueError, match="expected one of SAM's family for sam_adapter, got small"):
        hsam.build("sam_adapter", backbone="small", image_size=64)

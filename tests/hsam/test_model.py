"""The whole model: shapes, switches, noise, errors."""

import itertools

import pytest
import torch

import hsam
from hsam.class_balance import ClassBalancedMaskAttention
from hsam.noise import range_noise
from tests.hsam.seeded import seeded_image

SWITCHES = ("mask_attention", "pixel_decoder", "cm_attention")


@pytest.mark.parametrize("organs", [1, 3, 8, 13])
@pytest.mark.parametrize("size", [64, 224, 320, 512])
def test_shapes(size, organs):
    model = hsam.build_hsam("toy", image_size=size, num_classes=organs).eval()
    with torch.no_grad():
        output = model(torch.rand(1, 1, size, size))
    assert output.coarse_logits.shape == (1, organs + 1, size // 4, size // 4)
    assert output.fine_logits.shape == (1, organs + 1, size, size)
    assert output.coarse_iou.shape == output.fine_iou.shape == (1, organs + 1)
    for stage in ("mean", "coarse", "fine"):
        assert output.logits(stage).shape == (1, organs + 1, size, size)


@pytest.mark.parametrize("on", list(itertools.product([False, True], repeat=3)))
def test_every_combination_of_parts_trains_and_runs(on, batch):
    image, labels = batch
    switches = dict(zip(SWITCHES, on, strict=True))
    model = hsam.build_hsam("toy", image_size=64, num_classes=3, **switches)
    optimiser = torch.optim.AdamW(model.trainable_parameters(), 1e-3)
    hsam.two_stage_loss(model(image, labels), labels).total.backward()
    assert all(p.grad is not None for p in model.trainable_parameters())
    optimiser.step()
    with torch.no_grad():
        assert model.eval()(image).fine_logits.isfinite().all()


@pytest.mark.parametrize("part", SWITCHES)
def test_each_part_changes_the_fine_stage_alone(toy, part):
    image = seeded_image(1, 64)
    with torch.no_grad():
        whole, without = toy().eval()(image), toy(**{part: False}).eval()(image)
    assert torch.equal(whole.coarse_logits, without.coarse_logits)
    assert not torch.allclose(whole.fine_logits, without.fine_logits, atol=1e-3)


def test_mean_is_of_logits(toy):
    with torch.no_grad():
        output = toy().eval()(seeded_image(1, 64))
    expected = (output.logits("coarse") + output.logits("fine")) / 2
    assert torch.equal(output.logits("mean"), expected)
    assert torch.equal(output.logits(), expected)


def test_unknown_stage_is_refused(toy):
    with pytest.raises(ValueError, match="stage: expected one of .*got 'both'"):
        toy().eval()(seeded_image(1, 64)).logits("both")


def test_one_channel_is_repeated(toy):
    model, image = toy().eval(), seeded_image(1, 64)
    assert torch.equal(model(image[:, :1]).fine_logits, model(image).fine_logits)


def test_two_channels_are_followed_by_their_mean(toy):
    model, image = toy().eval(), torch.rand(1, 2, 64, 64)
    three = torch.stack([image[:, 0], image[:, 1], (image[:, 0] + image[:, 1]) / 2], 1)
    assert torch.equal(model(image).fine_logits, model(three).fine_logits)
    assert not torch.equal(model(image.flip(1)).fine_logits, model(three).fine_logits)


def test_cm_attention_gets_gradients_everywhere(toy, batch):
    image, labels = batch
    model = toy()
    model.requires_grad_(True)
    hsam.two_stage_loss(model(image, labels), labels).total.backward()
    for name, parameter in model.fine_decoder.cm_attention.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_cm_attention_weights_change_the_output(toy):
    model, image = toy().eval(), seeded_image(1, 64)
    before = model(image).fine_logits
    replace_cm_attention(model)
    assert (model(image).fine_logits - before).abs().max() > 1e-3


def test_constant_gate_ignores_cm_attention(toy):
    model, image = toy(gate="constant").eval(), seeded_image(1, 64)
    before = model(image).fine_logits
    replace_cm_attention(model)
    assert torch.equal(model(image).fine_logits, before)


def replace_cm_attention(model):
    attention: ClassBalancedMaskAttention = model.fine_decoder.cm_attention
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.copy_(torch.randn_like(parameter))


def test_range_noise_has_a_share_of_the_range_as_its_std():
    embedding = torch.zeros(1, 4, 100, 100)
    embedding[0, 0, 0, :2] = torch.tensor([-1.0, 2.0])
    noise = range_noise(embedding, 0.2)
    assert noise.std().item() == pytest.approx(0.2 * 3, rel=0.03)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(("options", "share"), [({}, 0.2), ({"embedding_noise": 0.0}, 0.0)])
def test_the_fine_stage_alone_sees_a_noisy_embedding(toy, options, share):
    model = toy(**options)
    seen = []
    model.coarse_decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.fine_decoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        model(seeded_image(1, 64))
    clean, noisy = seen
    expected = share * (clean.max() - clean.min()).item()
    assert (noisy - clean).std().item() == pytest.approx(expected, rel=0.1)


def test_inference_is_steady_and_ignores_labels(toy, batch):
    model = toy().eval()
    image, labels = batch
    assert torch.equal(model(image).fine_logits, model(image, labels).fine_logits)


def test_coarse_stage_has_no_noise(toy, batch):
    model = toy()
    image, labels = batch
    first, second = model(image, labels), model(image, labels)
    assert torch.equal(first.coarse_logits, second.coarse_logits)
    assert not torch.equal(first.fine_logits, second.fine_logits)


@pytest.mark.parametrize("attached", [False, True])
def test_noise_follows_the_generator(toy, batch, attached):
    model = toy()
    image, labels = batch

    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        if not attached:
            return model(image, labels, generator).fine_logits
        model.generator = generator
        return model(image, labels).fine_logits

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_generator_alone_decides_the_noise(toy, batch):
    model = toy()
    image, labels = batch
    before = torch.get_rng_state()
    model(image, labels, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)


def train(steps: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    model = hsam.build_hsam("vit_tiny", image_size=64, num_classes=3)
    model.generator = torch.Generator().manual_seed(6)
    optimiser = torch.optim.AdamW(model.trainable_parameters(), 1e-3)
    image, labels = torch.rand(2, 1, 64, 64), torch.randint(0, 4, (2, 64, 64))
    for _ in range(steps):
        optimiser.zero_grad()
        hsam.two_stage_loss(model(image, labels), labels, 0.4).total.backward()
        optimiser.step()
    return model.state_dict()


def test_seeded_runs_are_bit_identical():
    first, second = train(3), train(3)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_overfits_one_slice():
    model = hsam.build_hsam("vit_tiny", image_size=64, num_classes=3)
    labels = torch.zeros(1, 64, 64, dtype=torch.long)
    labels[:, 8:28, 10:30], labels[:, 36:56, 8:24], labels[:, 30:50, 40:60] = 1, 2, 3
    image = 0.2 + 0.2 * labels.unsqueeze(1).float()
    optimiser = torch.optim.AdamW(model.trainable_parameters(), 2e-3)
    for _ in range(120):
        optimiser.zero_grad()
        hsam.two_stage_loss(model(image, labels), labels, 0.4).total.backward()
        optimiser.step()
    with torch.no_grad():
        prediction = model.eval()(image).logits().argmax(dim=1)
    for organ in (1, 2, 3):
        found, truth = prediction == organ, labels == organ
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(dtype, batch):
    image, labels = batch
    model = hsam.build_hsam("toy", image_size=64, num_classes=3).to(dtype)
    output = model(image, labels)
    assert output.fine_logits.dtype == output.coarse_logits.dtype == dtype
    hsam.two_stage_loss(output, labels).total.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_bfloat16_stays_close(toy):
    image = seeded_image(1, 64)
    with torch.no_grad():
        exact = toy().eval()(image).coarse_logits
        rough = toy().bfloat16().eval()(image).coarse_logits.float()
    assert (rough - exact).abs().mean() < 0.1 * exact.std()


def test_autocast(batch):
    image, labels = batch
    model = hsam.build_hsam("toy", image_size=64, num_classes=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = hsam.two_stage_loss(model(image, labels), labels).total
    loss.backward()
    assert loss.isfinite()


@pytest.mark.parametrize(
    "shape", [(1, 1, 80, 80), (1, 2, 80, 64), (1, 64, 64), (1, 1, 64, 80), (1, 4, 64, 64)]
)
def test_wrong_image_is_refused(toy, shape):
    with pytest.raises(ValueError, match=r"expected \(B, 1 to 3, 64, 64\), got \(1, "):
        toy()(torch.zeros(shape))


def test_integer_image_is_refused(toy):
    with pytest.raises(TypeError, match="image: expected a floating dtype.*got torch.uint8"):
        toy()(torch.zeros(1, 1, 64, 64, dtype=torch.uint8))


def test_wrong_labels_are_refused(toy):
    model, image = toy(), seeded_image(1, 64)
    with pytest.raises(ValueError, match=r"labels: expected \(1, 64, 64\), got \(1, 32, 32\)"):
        model(image, torch.zeros(1, 32, 32, dtype=torch.long))
    with pytest.raises(TypeError, match="labels: expected an integer dtype"):
        model(image, torch.zeros(1, 64, 64))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 100}, "image_size: expected a positive multiple of 16, got 100"),
        ({"num_classes": 0}, "num_classes: expected an integer from 1, got 0"),
        ({"lora_rank": -1}, "lora_rank: expected an integer from 0 to 48, got -1"),
        ({"lora_rank": 49}, "lora_rank: expected an integer from 0 to 48, got 49"),
        ({"gate": "none"}, "gate: expected one of"),
    ],
)
def test_wrong_argument_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        hsam.build_hsam("toy", **arguments)


def test_tiny_encoder_is_trained_whole_by_default():
    model = hsam.build_hsam("vit_tiny", image_size=64)
    assert all(p.requires_grad for p in model.image_encoder.parameters())
    model = hsam.build_hsam("vit_tiny", image_size=64, train_encoder=False)
    assert not model.image_encoder.neck[0].weight.requires_grad


def test_compiles_without_breaks(toy):
    model, image = toy().eval().double(), seeded_image(1, 64).double()
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)(image)
        torch.testing.assert_close(compiled.fine_logits, model(image).fine_logits)


def test_exports_to_a_file_for_any_batch(toy, batch, tmp_path):
    model, image = toy().eval().double(), batch[0].double()
    count = torch.export.Dim("count", min=1, max=16)
    with torch.no_grad():
        exported = torch.export.export(model, (image,), dynamic_shapes=({0: count},))
        torch.export.save(exported, tmp_path / "model.pt2")
        run = torch.export.load(tmp_path / "model.pt2").module()
        three = torch.cat([image, image[:1]])
        torch.testing.assert_close(run(three).logits(), model(three).logits())

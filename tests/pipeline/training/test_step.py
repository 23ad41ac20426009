import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from pipeline.training.augment import augment, sample_seeds
from pipeline.training.batches import Batches
from pipeline.training.build import build_model
from pipeline.training.devices import make_fabric
from pipeline.training.step import Average, Loss, Trainer, training_step
from tests.pipeline.conftest import make_params

SIZE = 32


def trainer(device: str, **changes) -> Trainer:
    train = {"image_size": SIZE, "batch_size": 4, "learning_rate": 1e-3, **changes}
    settings = make_params(train=train, search={"trials": 0}).train
    fabric = make_fabric(settings, device)
    fabric.launch()
    return Trainer.make(fabric, build_model(settings, organs=2, seed=0), settings, seed=0)


def steps(one: Trainer, number: int, micro_batch: int = 4):
    """Losses of some steps on one batch."""
    images = torch.rand(4, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    labels = (images * 3).to(torch.uint8)
    images, labels = (each.to(one.fabric.device) for each in (images, labels))
    batches = Batches(4, number, 4, micro_batch, 0)
    for step in batches.steps():
        read = [(images[p.indices], labels[p.indices], p.indices) for p in step.passes]
        yield training_step(one, step, read, 1e-3, 0.4)


STILL = {"augment": {"rotate": 0.0, "crop": 0.0, "elastic": 0.0}}


def test_passes_with_equal_losses_give_the_gradient_of_their_mean():
    one = trainer("cpu", model="unet", dice_weight=0.0, **STILL)
    two = trainer("cpu", model="unet", dice_weight=0.0, **STILL)
    (whole,), (parts,) = list(steps(one, 1)), list(steps(two, 1, micro_batch=2))
    assert parts.shape == (2, 3)
    # cross entropy is a mean over pixels, so passes of equal size add up to the batch
    assert parts[:, 0].mean().item() == pytest.approx(whole[0, 0].item(), rel=1e-5)
    gradients = [[p.grad for p in x.model.trainable_parameters()] for x in (one, two)]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def scaled_fp16(*_) -> Fabric:
    """A CPU in float16 with a gradient scaler, as on a GPU without bfloat16."""
    return Fabric(accelerator="cpu", plugins=[MixedPrecision("16-mixed", "cpu")])


def test_the_average_stays_where_the_scaler_skips_a_step(monkeypatch):
    monkeypatch.setattr("tests.pipeline.training.test_step.make_fabric", scaled_fp16)
    one = trainer("cpu", model="unet", ema_decay=0.9, **STILL)
    scaler, average = one.fabric.strategy.precision.scaler, one.average

    def weights_and_average() -> list[torch.Tensor]:
        values = [*one.model.trainable_parameters(), *average.values]
        return [value.detach().clone() for value in values]

    def moved(before) -> list[bool]:
        pairs = zip(before, weights_and_average(), strict=True)
        changed = [not torch.equal(a, b) for a, b in pairs]
        half = len(changed) // 2
        return [any(changed[:half]), any(changed[half:])]

    for scale, moves in ((2.0**10, True), (2.0**100, False), (2.0**10, True)):
        scaler.load_state_dict(scaler.state_dict() | {"scale": scale})
        before = weights_and_average()
        list(steps(one, 1))
        assert moved(before) == [moves, moves]
        assert (scaler.get_scale() < scale) == (not moves)


@pytest.mark.parametrize("scaled", [False, True], ids=["fp32", "scaled fp16"])
def test_the_gradient_has_no_larger_norm_than_the_bound(monkeypatch, scaled):
    def fabric(*_):
        return scaled_fp16() if scaled else Fabric(accelerator="cpu")

    def norm(bound: float) -> float:
        one = trainer("cpu", model="unet", clip_norm=bound, **STILL)
        before = [p.detach().clone() for p in one.model.trainable_parameters()]
        list(steps(one, 1))
        after = one.model.trainable_parameters()
        assert any((a != b).any() for a, b in zip(before, after, strict=True))
        return torch.nn.utils.get_total_norm([p.grad for p in after]).item()

    monkeypatch.setattr("tests.pipeline.training.test_step.make_fabric", fabric)
    free = norm(1e6)
    assert norm(free / 2) == pytest.approx(free / 2, rel=1e-3)
    assert norm(free * 2) == pytest.approx(free, rel=1e-3)


SCRATCH = {"sam_checkpoint": None, "train_encoder": True, "lora_rank": 0}
EVERY_MODEL = pytest.mark.parametrize(
    "changes",
    [
        {"model": "unet"},
        {"model": "hsam", "embedding_noise": 0.2},
        {"model": "samed"},
        {"model": "sam_adapter"},
        {"model": "autosam"},
        {"backbone": "litemedsam", **SCRATCH},
    ],
    ids=lambda changes: changes.get("backbone", changes.get("model")),
)


@EVERY_MODEL
def test_a_pass_keeps_to_its_device_and_never_asks_it(changes):
    # the meta device has shapes and no values: a tensor of another device, or asking for a value,
    # is an error there, as it is a mistake or a wait on a GPU
    settings = make_params(train={"image_size": SIZE, **changes}, search={"trials": 0}).train
    model = build_model(settings, organs=2, seed=0).to("meta").train()
    images = [torch.zeros(40, 50, device="meta"), torch.zeros(20, 30, device="meta")]
    labels = [image.to(torch.uint8) for image in images]
    seeds = sample_seeds(0, 0, torch.arange(2))
    batch, classes = augment(images, labels, settings.augment, seeds, SIZE)
    average = Average(model.trainable_parameters(), 0.9)
    loss = Loss(model, settings)(batch, classes.long(), 0.4, 1)
    loss[0].backward()
    average.update(0, torch.ones((), device="meta"))
    gradients = [p.grad for p in model.trainable_parameters() if p.grad is not None]
    assert gradients and {g.device.type for g in [loss, *gradients]} == {"meta"}


@EVERY_MODEL
def test_a_pass_in_bfloat16_has_the_loss_of_one_in_float32(changes):
    settings = make_params(train={"image_size": SIZE, **changes}, search={"trials": 0}).train
    images = torch.rand(2, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    labels = (images[:, 0] * 3).long()
    totals = []
    for mixed in (False, True):
        loss = Loss(build_model(settings, organs=2, seed=0).train(), settings)
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            total = loss(images, labels, 0.4, 2)[0]
        total.backward()
        gradients = [p.grad for p in loss.parameters() if p.grad is not None]
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        totals.append(total.item())
    assert totals[1] == pytest.approx(totals[0], abs=2e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_does_not_wait_for_the_gpu(precision):
    one = trainer("cuda", precision=precision, clip_norm=1.0, ema_decay=0.9)
    losses = list(steps(one, 2, micro_batch=2))  # the first steps allocate and choose kernels
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses += steps(one, 3, micro_batch=2)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(torch.stack(losses)[..., 0]).all()

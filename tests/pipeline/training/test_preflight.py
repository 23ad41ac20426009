import pytest
import torch

from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Train
from pipeline.training import memory, preflight
from pipeline.training.batches import Batches
from pipeline.training.build import build_model
from pipeline.training.devices import make_fabric
from tests.pipeline.conftest import make_params


def settings(**changes) -> Train:
    return make_params(train={"image_size": 32, "batch_size": 16, **changes}).train


def chosen(monkeypatch, free: float, validated=None, begun=False, **changes) -> int:
    """The size of a pass where `free` bytes are free."""
    monkeypatch.setattr(preflight, "free_bytes", lambda device: free)
    wanted = settings(**changes)
    fabric = make_fabric(wanted, "cpu")
    fabric.launch()
    model = build_model(wanted, organs=2, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    size, spare = preflight.passes(fabric, model, wanted, 16, begun=begun, validated=validated)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert 0 <= spare < free
    return size


def test_auto_takes_the_most_that_fits_halving_it(monkeypatch):
    wanted = settings()
    fabric = make_fabric(wanted, "cpu")
    loss = preflight.Loss(build_model(wanted, organs=2, seed=0).train(), wanted)
    estimate = memory.Estimate(fabric, loss)
    for size in (16, 8, 4, 1):
        enough = estimate(size)
        assert chosen(monkeypatch, enough * 1.01, micro_batch="auto") == size


def test_a_given_size_is_taken_as_it_is_but_never_beyond_the_batch(monkeypatch):
    assert chosen(monkeypatch, 1e12, micro_batch=5) == 5
    assert chosen(monkeypatch, 1e12, micro_batch=64) == 16


def test_what_cannot_fit_says_what_is_needed_and_what_is_free(monkeypatch):
    with pytest.raises(
        UserError, match=r"1 slices of 32 px .* need .* GiB, 0.00 GiB are free"
    ) as e:
        chosen(monkeypatch, 1e6, micro_batch="auto")
    assert "choose a smaller train.image_size" in str(e.value)


def test_the_passes_of_a_validation_have_to_fit_as_well(monkeypatch):
    wanted = settings()
    model = build_model(wanted, organs=2, seed=0)
    fabric = make_fabric(wanted, "cpu")
    large = (1024, 1024)  # for which logits take more than the small model's training
    needed = memory.validation_bytes(fabric, model, large)
    assert needed(4) > memory.Estimate(fabric, preflight.Loss(model.train(), wanted))(16)
    for size in (16, 4, 1):
        assert chosen(monkeypatch, needed(size) * 1.01, large, micro_batch="auto") == size
    assert chosen(monkeypatch, needed(1) * 1.01, micro_batch=4) == 4
    for micro_batch, sentence in {
        4: "4 slices of 32 px in a validation of hsam need .*; set it to auto or lower.$",
        "auto": "1 slices of 32 px in a validation .*; choose a smaller train.image_size.$",
    }.items():
        with pytest.raises(UserError, match=sentence):
            chosen(monkeypatch, needed(1) * 0.99, large, micro_batch=micro_batch)


def test_a_validation_takes_16_slices_at_most():
    assert [preflight.validation_slices(size) for size in (1, 16, 64)] == [1, 16, 16]


def test_a_training_that_goes_on_is_refused_rather_than_changed(monkeypatch):
    estimate = memory.Estimate(
        make_fabric(settings(), "cpu"),
        preflight.Loss(build_model(settings(), organs=2, seed=0).train(), settings()),
    )
    assert chosen(monkeypatch, estimate(16) * 1.01, begun=True, micro_batch="auto") == 16
    with pytest.raises(UserError, match="16 slices .* began with passes of 16 .* begin anew"):
        chosen(monkeypatch, estimate(16) * 0.99, begun=True, micro_batch="auto")


def test_the_peak_counts_what_lives_at_the_same_time():
    with memory.Peak() as peak:
        kept = torch.zeros(1000)
        for _ in range(5):
            kept = kept + 1
        (kept[:10] * 2).sum()
    assert peak.bytes == pytest.approx(2 * 4000, abs=100)


def test_the_estimate_grows_with_the_pass_and_is_not_below_what_it_keeps(monkeypatch):
    wanted = settings()
    model = build_model(wanted, organs=2, seed=0)
    fabric = make_fabric(wanted, "cpu")
    loss = preflight.Loss(model, wanted)
    estimate = memory.Estimate(fabric, loss)
    kept = []

    def keep(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(*memory.zero_batch(loss, 8, fabric.device), 0.5, 8)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    activations = sum(size for pointer, size in storages.items() if pointer not in own)
    state = 16 * model.count_trainable()
    assert activations <= estimate(8) - state <= 2 * activations


def test_checkpointing_needs_less(monkeypatch):
    def a_slice(**changes) -> int:
        wanted = settings(**changes)
        model = build_model(wanted, organs=2, seed=0).train()
        return memory.Estimate(
            make_fabric(wanted, "cpu"), preflight.Loss(model, wanted)
        ).slice_bytes

    assert a_slice(gradient_checkpointing=True) < 0.95 * a_slice(gradient_checkpointing=False)


@pytest.mark.gpu
def test_passes_are_measured_on_a_gpu():
    wanted = settings(micro_batch="auto")
    fabric = make_fabric(wanted, "cuda")
    fabric.launch()
    model = build_model(wanted, organs=2, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    size, spare = preflight.passes(fabric, model, wanted, 16, validated=(64, 64))
    assert size == 16 and 0 < spare < memory.free_bytes(fabric.device)
    assert all(torch.equal(value.cpu(), before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_table_names_what_follows_from_the_parameters():
    wanted = settings(epochs=3, warmup_iterations=50)
    model = build_model(wanted, organs=2, seed=0)
    batches = Batches(40, 3, 16, 6, 0)
    rows = preflight.derived(make_fabric(wanted, "cpu"), model, wanted, batches, {"data": "abc"})
    assert rows["data"] == "abc"
    assert rows["steps"] == "9: 3 epochs of 3"
    assert rows["accumulation"] == "3 x 6 slices or fewer on each of 1"
    assert rows["parameters"].startswith(f"{model.count_trainable():,} of ")
    assert {f"parameters of {part}" for part, _ in model.named_children()} < rows.keys()
    assert "warm-up is longer" in rows["note"]

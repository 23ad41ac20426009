import json
import os
import signal
import weakref

import numpy as np
import pytest
import torch

from pipeline.core.errors import Stopped, UserError
from pipeline.core.params.blocks import Train
from pipeline.training import preflight
from pipeline.training.build import build_model
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import make_fabric
from pipeline.training.fit import fit
from pipeline.training.memory import Estimate
from pipeline.training.slices import SliceDataset
from pipeline.training.state import Progress
from pipeline.training.step import Loss
from tests.pipeline.conftest import make_params, save_shard

SIZE = 32


def settings(**changes) -> Train:
    small = {"image_size": SIZE, "epochs": 3, "batch_size": 4, "warmup_iterations": 2}
    train = {**small, "validate_every": 1, **changes}
    return make_params(train=train, search={"trials": 0}).train


@pytest.fixture
def slices(tmp_path_factory) -> SliceDataset:
    return write_slices(tmp_path_factory.mktemp("shards"))


def write_slices(folder, count: int = 6, bad: int | None = None) -> SliceDataset:
    labels = np.zeros((count, SIZE, SIZE), np.uint8)
    labels[:, 8:20, 4:16] = 1
    labels[:, 18:30, 18:30] = 2
    images = labels / 4 + np.random.default_rng(0).random(labels.shape) / 10
    if bad is not None:
        images[bad] = np.nan
    save_shard(folder / "a.parquet", images, labels)
    return SliceDataset(folder, [("a", index) for index in range(count)])


Weights = dict[str, torch.Tensor]


def run(
    data: SliceDataset, chosen: Train, folder=None, validate=None, device="cpu"
) -> tuple[Weights, Progress]:
    model = build_model(chosen, organs=2, seed=0)
    fabric = make_fabric(chosen, device)
    fabric.launch()
    progress = fit(fabric, model, data, chosen, seed=0, validate=validate, folder=folder)
    return model.state_dict(), progress


def trained(*args) -> Weights:
    return run(*args)[0]


def assert_same(a: Weights, b: Weights) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def steady(model, fabric, slices) -> dict[str, float]:
    return {"liver": 0.5}


def stop_at(call: int):
    """A validation that is interrupted at its n-th call."""
    calls = []

    def validate(model, fabric, slices) -> dict[str, float]:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return steady(model, fabric, slices)

    return validate


def scoring(scores, organ: str = "liver"):
    """A validation that gives these numbers, one after the other."""
    left = iter(scores)
    return lambda *_: {organ: next(left)}


def test_two_trainings_are_bit_identical(slices):
    assert_same(trained(slices, settings()), trained(slices, settings()))


@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_interrupted_training_ends_as_if_it_never_was(slices, tmp_path, call):
    with pytest.raises(KeyboardInterrupt):
        trained(slices, settings(), tmp_path, stop_at(call))
    resumed = trained(slices, settings(), tmp_path, steady)
    assert_same(resumed, trained(slices, settings(), None, steady))


def test_what_else_a_step_depends_on_survives_an_interruption(slices, tmp_path):
    chosen = settings(
        ema_decay=0.9, clip_norm=1.0, sampler="rare_organ", micro_batch=3, checkpoint_minutes=0.0
    )
    with pytest.raises(KeyboardInterrupt):
        trained(slices, chosen, tmp_path, stop_at(2))
    resumed = trained(slices, chosen, tmp_path, steady)
    assert_same(resumed, trained(slices, chosen, None, steady))


def test_a_training_that_goes_on_keeps_the_size_of_its_passes(slices, tmp_path, monkeypatch):
    chosen = settings(micro_batch="auto")
    loss = Loss(build_model(chosen, organs=2, seed=0).train(), chosen)
    needed = Estimate(make_fabric(chosen, "cpu"), loss)
    sizes = []

    def validate(model, fabric, slices) -> dict[str, float]:
        sizes.append(slices)
        if len(sizes) == 2:
            raise KeyboardInterrupt
        return steady(model, fabric, slices)

    def free(size: int) -> None:
        monkeypatch.setattr(preflight, "free_bytes", lambda device: 1.01 * needed(size))

    free(2)
    with pytest.raises(KeyboardInterrupt):
        trained(slices, chosen, tmp_path, validate)
    free(1)
    with pytest.raises(UserError, match="train.micro_batch: .* began with passes of 2"):
        trained(slices, chosen, tmp_path, validate)
    free(4)
    resumed = trained(slices, chosen, tmp_path, validate)
    assert sizes == [2, 2, 2, 2]
    assert_same(resumed, trained(slices, settings(micro_batch=2), None, steady))


def test_slices_of_several_sides_are_trained_on_and_resumed(tmp_path):
    random = np.random.default_rng(0)
    for case, side in {"a": SIZE, "b": 2 * SIZE + 5}.items():
        labels = np.zeros((3, side, side + 3), np.uint8)
        labels[:, side // 4 : side // 2, 4:16] = 1
        save_shard(tmp_path / f"{case}.parquet", labels / 4 + random.random(labels.shape), labels)
    data = SliceDataset(tmp_path, [(case, index) for index in range(3) for case in "ab"])
    with pytest.raises(KeyboardInterrupt):
        trained(data, settings(workers=1), tmp_path, stop_at(2))
    assert_same(trained(data, settings(), tmp_path, steady), trained(data, settings()))


def test_the_history_of_a_resumed_training_is_the_same(slices, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(slices, settings(), tmp_path, stop_at(2))
    _, resumed = run(slices, settings(), tmp_path, steady)
    _, whole = run(slices, settings(), None, steady)
    assert resumed.history == whole.history
    assert [row["epoch"] for row in resumed.history.epochs] == [0, 1, 2]
    written = (tmp_path / "dvclive" / "plots" / "metrics" / "train_loss.tsv").read_text()
    assert [line.split("\t")[0] for line in written.splitlines()] == ["step", "0", "1", "2"]


def test_killed_after_its_last_step_a_training_still_has_its_logs(slices, tmp_path):
    folder, log = tmp_path, tmp_path / "dvclive"
    _, first = run(slices, settings(), folder, steady)
    written = {path: path.read_bytes() for path in log.rglob("*") if path.is_file()}
    _, again = run(slices, settings(), folder, steady)
    assert again.history == first.history
    assert any("train_loss" in path.name for path in written)
    assert written == {path: path.read_bytes() for path in log.rglob("*") if path.is_file()}


def test_loss_falls_and_history_has_a_row_an_epoch(slices):
    chosen = settings(epochs=12, learning_rate=0.003, validate_every=4, log_every=100)
    _, progress = run(slices, chosen, None, steady)
    rows = progress.history.epochs
    losses = [row["train_loss"] for row in rows]
    assert len(losses) == 12
    assert losses[-1] < 0.8 * losses[0]
    assert [row["iteration"] for row in rows] == [2 * epoch for epoch in range(1, 13)]
    validated = [row["epoch"] for row in rows if row["validation_dice"] is not None]
    assert validated == [3, 7, 11]


def test_an_interval_of_the_log_changes_nothing(slices):
    weights, every = run(slices, settings(log_every=1))
    others, seldom = run(slices, settings(log_every=100))
    assert_same(weights, others)
    assert every.history.epochs == seldom.history.epochs


def test_an_epochs_loss_is_the_mean_over_its_slices(slices):
    # rate so small that nothing moves: both epochs then have the losses of the same weights
    frozen = {"learning_rate": 1e-12, "weight_decay": 0.0, "epochs": 1, "model": "samed"}
    still = {"rotate": 0.0, "crop": 0.0, "elastic": 0.0}
    _, whole = run(slices, settings(batch_size=1, augment=still, **frozen))
    _, halves = run(slices, settings(batch_size=4, micro_batch=1, augment=still, **frozen))
    assert whole.history.epochs[0]["train_loss"] == pytest.approx(
        halves.history.epochs[0]["train_loss"], rel=1e-5
    )


def test_best_and_last_are_both_kept(slices, tmp_path):
    model_after_two, _ = run(slices, settings(), tmp_path, scoring([0.1, 0.9, 0.2]))
    saved = Checkpoints(tmp_path).load()
    assert saved["best"][0] == 0.9
    assert_same({n: model_after_two[n] for n in saved["model"]}, saved["model"])
    with pytest.raises(KeyboardInterrupt):
        run(slices, settings(), tmp_path / "other", stop_at(3))
    second = Checkpoints(tmp_path / "other").load()
    assert second["step"] == 4
    assert_same(saved["best"][1], second["model"])


def test_early_stopping_counts_validations_without_a_better_one(slices):
    chosen = settings(epochs=9, early_stopping=2)
    _, progress = run(slices, chosen, None, scoring([0.3, 0.4, 0.2, 0.4, 0.9]))
    assert [row["validation_dice"] for row in progress.history.epochs] == [0.3, 0.4, 0.2, 0.4]


def test_the_time_left_says_which_validations_it_is_without(slices, capsys):
    run(slices, settings(epochs=3, validate_every=2), None, lambda *_: {"liver": 0.5})
    lines = [line for line in capsys.readouterr().err.splitlines() if " left" in line]
    assert lines[0].endswith("left without 2 validations")
    assert any("epoch 1  validation  " in line for line in lines)
    assert "Dice 0.500" in lines[-1]
    assert lines[-1].endswith("0:00 left")


def test_a_validation_is_kept_organ_by_organ(slices):
    _, progress = run(slices, settings(epochs=1), None, lambda *_: {"liver": 0.5, "spleen": 0.7})
    assert progress.history.validations == [
        {"epoch": 0, "organ": "liver", "dice": 0.5},
        {"epoch": 0, "organ": "spleen", "dice": 0.7},
    ]
    assert progress.history.epochs[0]["validation_dice"] == pytest.approx(0.6)


def test_the_average_is_validated_and_is_what_comes_out(slices):
    seen = []

    def validate(model, fabric, slices):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return steady(model, fabric, slices)

    averaged = trained(slices, settings(ema_decay=0.99), None, validate)
    plain = trained(slices, settings(), None, steady)
    assert_same(seen[-1], averaged)
    assert any(not torch.equal(averaged[name], plain[name]) for name in plain)


def test_a_loss_that_is_no_number_names_the_slices(tmp_path):
    data = write_slices(tmp_path, bad=2)
    with pytest.raises(UserError, match=r"loss is nan at epoch 0.*a slice 2") as caught:
        trained(data, settings(batch_size=6), tmp_path)
    assert "nonfinite.json" in str(caught.value)
    listed = json.loads((tmp_path / "nonfinite.json").read_text())
    assert {"case": "a", "slice": 2} in listed["slices"]
    assert len(listed["slices"]) == 6
    assert not list(tmp_path.glob("checkpoint-*"))


def test_the_batch_is_named_though_the_loss_is_looked_at_later(tmp_path):
    data = write_slices(tmp_path, bad=2)
    with pytest.raises(UserError, match="loss is nan") as caught:
        trained(data, settings(batch_size=1, log_every=100, epochs=1, validate_every=0), tmp_path)
    assert "in the batch of a slice 2 " in str(caught.value)


def test_clipping_bounds_the_gradient(slices, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        grads = [p.grad for g in self.param_groups for p in g["params"] if p.grad is not None]
        norms.append(torch.nn.utils.get_total_norm(grads).item())
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    run(slices, settings(epochs=1, clip_norm=1e-3))
    assert max(norms) <= 1.001e-3


@pytest.mark.parametrize("model", ["hsam", "samed", "sam_adapter", "autosam", "unet"])
def test_every_model_can_be_trained(slices, model):
    chosen = settings(model=model, epochs=2)
    weights, progress = run(slices, chosen)
    start = build_model(chosen, organs=2, seed=0).state_dict()
    assert any(not torch.equal(weights[name], start[name]) for name in start)
    row = progress.history.epochs[-1]
    stages = {"hsam": ("coarse", "fine"), "unet": ("fine",)}.get(model, ("coarse",))
    for stage in ("coarse", "fine"):
        assert (row[f"train_loss_{stage}"] is not None) == (stage in stages)
    if len(stages) == 1:
        assert row["train_loss"] == row[f"train_loss_{stages[0]}"]
    assert (row["lambda"] is None) == (len(stages) == 1)


def test_a_signal_ends_the_step_and_keeps_it(slices, tmp_path):
    def validate(model, fabric, slices):
        os.kill(os.getpid(), signal.SIGTERM)
        return steady(model, fabric, slices)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="after step 2") as caught:
        run(slices, settings(), tmp_path, validate)
    assert caught.value.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert Checkpoints(tmp_path).load()["step"] == 2
    assert_same(trained(slices, settings(), tmp_path, steady), trained(slices, settings()))


def test_a_resumed_training_does_not_keep_the_checkpoint_in_memory(slices, tmp_path, monkeypatch):
    loaded, load = [], Checkpoints.load

    def remembering(self):
        state = load(self)
        if state is not None:
            loaded.extend(map(weakref.ref, [*state["model"].values(), *state["average"]]))
        return state

    def validate(model, fabric, slices) -> dict[str, float]:
        assert not [tensor for tensor in loaded if tensor() is not None]
        return steady(model, fabric, slices)

    chosen = settings(ema_decay=0.9)
    with pytest.raises(KeyboardInterrupt):
        run(slices, chosen, tmp_path, stop_at(2))
    monkeypatch.setattr(Checkpoints, "load", remembering)
    run(slices, chosen, tmp_path, validate)
    assert loaded


def test_a_checkpoint_that_trained_other_weights_is_refused(slices, tmp_path):
    def resume(all_weights: bool) -> None:
        model = build_model(settings(), organs=2, seed=0)
        model.coarse_decoder.iou_prediction_head.requires_grad_(all_weights)
        fabric = make_fabric(settings(), "cpu")
        fabric.launch()
        fit(fabric, model, slices, settings(), seed=0, validate=stop_at(2), folder=tmp_path)

    with pytest.raises(KeyboardInterrupt):
        resume(True)
    with pytest.raises(UserError, match=r"trained \d+ tensors of the model, this one trains \d+;"):
        resume(False)


def test_heads_without_a_loss_stay_as_they_were_and_are_kept(slices, tmp_path):
    chosen = settings(epochs=1, weight_decay=0.5)
    start = build_model(chosen, organs=2, seed=0).state_dict()
    end = trained(slices, chosen, tmp_path, steady)
    saved = Checkpoints(tmp_path).load()["model"]
    heads = [name for name in start if "iou_prediction_head" in name]
    assert heads and all(torch.equal(start[name], end[name]) for name in heads)
    assert all(torch.equal(start[name], saved[name]) for name in heads)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_training_on_a_gpu_goes_on(slices, tmp_path, precision):
    chosen = settings(precision=precision, ema_decay=0.9, clip_norm=1.0)
    with pytest.raises(KeyboardInterrupt):
        run(slices, chosen, tmp_path, stop_at(2), "cuda")
    _, resumed = run(slices, chosen, tmp_path, steady, "cuda")
    _, whole = run(slices, chosen, None, steady, "cuda")
    losses = [[row["train_loss"] for row in one.history.epochs] for one in (resumed, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)  # a GPU adds in any order


def test_the_first_step_is_said_at_once(slices, capsys):
    run(slices, settings(log_every=100, validate_every=0))
    assert capsys.readouterr().err.startswith("train 1/6  epoch 0  loss ")

"""Two gloo processes on the CPU stand for two GPUs."""

import json
import math
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.core.errors import Stopped, UserError
from pipeline.core.params.blocks import Train
from pipeline.training.build import build_model
from pipeline.training.checkpoints import Checkpoints
from pipeline.training.devices import launch, make_fabric, precision
from pipeline.training.fit import fit
from pipeline.training.slices import SliceDataset
from tests.pipeline.conftest import make_params, save_shard

SIZE = 32
SLICES = 7


def settings(**changes) -> Train:
    small = {
        "image_size": SIZE,
        "epochs": 3,
        "batch_size": 4,
        "warmup_iterations": 2,
        "validate_every": 3,
        "log_every": 1,
    }
    return make_params(train={**small, **changes}, search={"trials": 0}).train


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    labels = np.zeros((SLICES, SIZE, SIZE), np.uint8)
    for index in range(SLICES):
        labels[index, 4 + index : 20, 4:16] = 1
    labels[::2, 18:30, 18:30] = 2
    images = labels / 4 + np.random.default_rng(0).random(labels.shape) / 10
    save_shard(folder / "a.parquet", images, labels)
    return folder


def score(model, fabric, slices) -> dict[str, float]:
    return {"liver": 0.5}


def worker(fabric, chosen, shards, folder, validate) -> None:
    """What one device's process does."""
    data = SliceDataset(shards, [("a", index) for index in range(SLICES)])
    model = build_model(chosen, organs=2, seed=0)
    progress = fit(fabric, model, data, chosen, seed=0, validate=validate, folder=folder)
    if fabric.is_global_zero:
        rows = progress.history.epochs
        (folder / "losses.json").write_text(json.dumps([row["train_loss"] for row in rows]))


def losses(chosen: Train, shards: Path, folder: Path, device: str = "cpu") -> list[float]:
    launch(make_fabric(chosen, device), worker, chosen, shards, folder, score)
    return json.loads((folder / "losses.json").read_text())


def assert_same_curve(one: list[float], two: list[float]) -> None:
    """Equal but for rounding, which AdamW lets grow from step to step."""
    assert two[0] == pytest.approx(one[0], rel=1e-5)
    assert two == pytest.approx(one, rel=2e-3)


def test_two_devices_have_the_loss_curve_of_one(shards, tmp_path):
    # 7 slices in batches of 3, 3 and 1: the devices' shares differ, and one is empty
    common = {"model": "samed", "batch_size": 3}
    one = losses(settings(**common), shards, tmp_path / "one")
    two = losses(settings(devices=2, **common), shards, tmp_path / "two")
    assert len(one) == 3 and one[-1] < one[0]
    assert_same_curve(one, two)


def test_passes_that_are_shared_out_have_the_curve_of_passes_of_that_size(shards, tmp_path):
    common = {"model": "samed", "epochs": 2, "second_loss": "mse"}
    one = losses(settings(micro_batch=2, **common), shards, tmp_path / "one")
    two = losses(settings(micro_batch=1, devices=2, **common), shards, tmp_path / "two")
    assert_same_curve(one, two)


@pytest.mark.gpu
def test_two_gpus_have_the_loss_curve_of_one(shards, tmp_path):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    common = {"model": "samed", "batch_size": 3, "precision": "fp32"}
    one = losses(settings(**common), shards, tmp_path / "one", "cuda")
    two = losses(settings(devices=2, **common), shards, tmp_path / "two", "cuda")
    assert_same_curve(one, two)


def test_every_trained_weight_of_both_stages_has_a_gradient_on_all_devices(shards, tmp_path):
    # the last epoch gives the coarse stage no weight, its last batch the second device no slice
    chosen = settings(devices=2, epochs=2, batch_size=3, lambda_end_at_zero=True)
    assert all(map(math.isfinite, losses(chosen, shards, tmp_path)))


def asks(model, fabric, slices) -> dict[str, float]:
    if fabric.global_rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return score(model, fabric, slices)


def test_a_signal_to_one_process_stops_all_and_the_training_goes_on(shards, tmp_path):
    chosen = settings(model="samed", devices=2, validate_every=1)
    with pytest.raises(Stopped, match="after step 2"):
        launch(make_fabric(chosen, "cpu"), worker, chosen, shards, tmp_path, asks)
    assert Checkpoints(tmp_path).load()["step"] == 2
    one = losses(settings(model="samed", validate_every=1), shards, tmp_path / "one")
    assert_same_curve(one, losses(chosen, shards, tmp_path))


def refuses(fabric) -> None:
    if fabric.global_rank == 1:
        raise UserError("shard: damaged.")
    fabric.barrier()


def test_a_mistake_that_one_process_finds_is_one_sentence():
    with pytest.raises(UserError) as caught:
        launch(make_fabric(settings(devices=2), "cpu"), refuses)
    assert caught.value.problems == ["shard: damaged."]


def dies(fabric) -> None:
    if fabric.global_rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    fabric.barrier()


def test_a_killed_process_is_one_sentence():
    with pytest.raises(UserError, match=r"a device's process was killed \(SIGKILL\)"):
        launch(make_fabric(settings(devices=2), "cpu"), dies)


def test_more_gpus_than_there_are_are_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UserError, match=r"train\.devices: 2 GPUs are wanted, 1 can be used"):
        make_fabric(settings(devices=2), "cuda")


def test_more_processes_than_cores_are_refused(monkeypatch):
    monkeypatch.setattr("pipeline.core.cpus.usable", lambda: 2)
    with pytest.raises(UserError, match=r"train\.devices: 3 are wanted.*the CPU has 2 cores"):
        make_fabric(settings(devices=3), "cpu")


def test_precision_follows_the_device(monkeypatch):
    assert precision("auto", "cpu") == "fp32"
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: True)
    assert precision("auto", "cuda") == "bf16"
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: False)
    assert precision("auto", "cuda") == "fp16"


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(UserError, match=r"train\.precision: fp16 needs a GPU"):
        make_fabric(settings(precision="fp16"), "cpu")


def test_bf16_trains_on_a_cpu_close_to_fp32(shards, tmp_path):
    common = {"model": "samed", "epochs": 1}
    whole = losses(settings(precision="fp32", **common), shards, tmp_path / "fp32")
    half = losses(settings(precision="bf16", **common), shards, tmp_path / "bf16")
    assert half != whole
    assert half == pytest.approx(whole, rel=0.02)

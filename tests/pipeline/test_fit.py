import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.fit import build_model, fit
from pipeline.params import Train
from pipeline.slice_dataset import SliceDataset
from tests.pipeline.conftest import make_params, save_shard

SIZE = 32


def settings(**changes) -> Train:
    small = {"image_size": SIZE, "epochs": 3, "batch_size": 4, "warmup_iterations": 2}
    return make_params(train={**small, "validate_every": 1, **changes}).train


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
    return SliceDataset(folder, [("a", index) for index in range(count)], SIZE)


def trained(
    data: SliceDataset, chosen: Train, folder=None, validate=None
) -> dict[str, torch.Tensor]:
    model = build_model(chosen, organs=2, seed=0)
    fit(
        model,
        data,
        chosen,
        seed=0,
        device="cpu",
        validate=validate,
        folder=folder,
    )
    return model.state_dict()


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def stop_at(call: int):
    """A validation that is interrupted at its n-th call."""
    calls = []

    def validate(model) -> float:
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return 0.5

    return validate


def test_two_trainings_are_bit_identical(slices):
    assert_same(trained(slices, settings()), trained(slices, settings()))


@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_interrupted_training_ends_as_if_it_never_was(slices, tmp_path, call):
    with pytest.raises(KeyboardInterrupt):
        trained(slices, settings(), tmp_path, stop_at(call))
    resumed = trained(slices, settings(), tmp_path, lambda model: 0.5)
    assert_same(resumed, trained(slices, settings(), None, lambda model: 0.5))


def test_loss_falls_and_history_has_a_row_an_epoch(slices):
    chosen = settings(epochs=12, learning_rate=0.003, validate_every=4)
    model = build_model(chosen, organs=2, seed=0)
    progress = fit(
        model,
        slices,
        chosen,
        seed=0,
        device="cpu",
        validate=lambda model: 0.5,
        folder=None,
    )
    losses = [row["train_loss"] for row in progress.history]
    assert len(losses) == 12
    assert losses[-1] < 0.8 * losses[0]
    validated = [row["epoch"] for row in progress.history if row["validation_dice"] is not None]
    assert validated == [3, 7, 11]


def test_best_keeps_the_weights_of_the_best_validation(slices, tmp_path):
    scores = iter([0.1, 0.9, 0.2])
    kept = trained(slices, settings(keep="best"), None, lambda model: next(scores))
    with pytest.raises(KeyboardInterrupt):
        trained(slices, settings(), tmp_path, stop_at(3))
    second = torch.load(tmp_path / "state.pt", weights_only=True)
    assert second["epoch"] == 2
    assert all(torch.equal(kept[name], value) for name, value in second["model"].items())


def test_a_loss_that_is_no_number_names_the_slices(tmp_path):
    with pytest.raises(UserError, match=r"loss is nan at epoch 0.*a slice 2"):
        trained(write_slices(tmp_path, bad=2), settings(batch_size=6))

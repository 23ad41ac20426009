import pytest
import torch

from pipeline.errors import UserError
from pipeline.fit import build_model, fit
from pipeline.params import Train
from pipeline.slices import SliceSet
from tests.pipeline.conftest import make_params

SIZE = 32


def settings(**changes) -> Train:
    small = {"image_size": SIZE, "epochs": 3, "batch_size": 4, "warmup_iterations": 2}
    return make_params(train={**small, "validate_every": 1, **changes}).train


def slices(count: int = 6) -> SliceSet:
    labels = torch.zeros(count, SIZE, SIZE, dtype=torch.uint8)
    labels[:, 8:20, 4:16] = 1
    labels[:, 18:30, 18:30] = 2
    noise = torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    images = labels[:, None].float() / 4 + noise / 10
    return SliceSet(images, labels, tuple(("a", index) for index in range(count)))


def trained(chosen: Train, folder=None, validate=None, data=None) -> dict[str, torch.Tensor]:
    model = build_model(chosen, organs=2, seed=0)
    fit(
        model,
        data or slices(),
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


def test_two_trainings_are_bit_identical():
    assert_same(trained(settings()), trained(settings()))


@pytest.mark.parametrize("call", [1, 2, 3])
def test_an_interrupted_training_ends_as_if_it_never_was(tmp_path, call):
    with pytest.raises(KeyboardInterrupt):
        trained(settings(), tmp_path, stop_at(call))
    resumed = trained(settings(), tmp_path, lambda model: 0.5)
    assert_same(resumed, trained(settings(), None, lambda model: 0.5))


def test_loss_falls_and_history_has_a_row_an_epoch():
    chosen = settings(epochs=12, learning_rate=0.003, validate_every=4)
    model = build_model(chosen, organs=2, seed=0)
    progress = fit(
        model,
        slices(),
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


def test_best_keeps_the_weights_of_the_best_validation(tmp_path):
    scores = iter([0.1, 0.9, 0.2])
    kept = trained(settings(keep="best"), None, lambda model: next(scores))
    with pytest.raises(KeyboardInterrupt):
        trained(settings(), tmp_path, stop_at(3))
    second = torch.load(tmp_path / "state.pt", weights_only=True)
    assert second["epoch"] == 2
    assert all(torch.equal(kept[name], value) for name, value in second["model"].items())


def test_a_loss_that_is_no_number_names_the_slices():
    data = slices()
    data.images[2] = torch.nan
    with pytest.raises(UserError, match=r"loss is nan at epoch 0.*a slice 2"):
        trained(settings(batch_size=6), data=data)

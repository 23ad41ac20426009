"""Trainings that start from an earlier run."""

import pytest
import torch

from hsam.weights import storage
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.training.build import build_model
from pipeline.training.start import started

ORGANS, SEED = 3, 5


@pytest.fixture
def settings(phantom_params):
    return phantom_params.train.model_copy(update={"image_size": 32, "lora_rank": 2})


@pytest.fixture
def earlier(settings, tmp_path):
    """The folder of a model with weights of its own."""
    model = build_model(settings, ORGANS, SEED)
    folder = storage.save(model, tmp_path / "earlier", class_names=["a", "b", "c"])
    files.write_json(folder / "provenance.json", {"inputs": {"manifest": "m"}})
    return folder


def test_without_one_it_is_the_model_of_its_seed(settings):
    found = started(settings, ORGANS, SEED, None)
    new = build_model(settings, ORGANS, SEED).state_dict()
    assert found.facts == {}
    assert all(torch.equal(value, new[name]) for name, value in found.model.state_dict().items())


def test_parts_of_the_same_shape_are_the_earlier_runs(settings, earlier):
    found = started(settings, ORGANS, SEED + 1, earlier, "another")
    stored = storage.read_tensors(earlier)
    trained = {name for name, p in found.model.named_parameters() if p.requires_grad}
    assert trained
    for name, value in found.model.state_dict().items():
        assert name not in trained or torch.equal(value, stored[name])
    assert found.facts == {"start": f"{earlier}: {len(trained)} of {len(trained)} trained tensors"}


def test_parts_of_another_number_of_organs_begin_anew(settings, earlier):
    found = started(settings, ORGANS + 1, SEED + 1, earlier, "m")
    stored, fresh = storage.read_tensors(earlier), build_model(settings, ORGANS + 1, SEED + 1)
    for name, parameter in found.model.named_parameters():
        like = stored.get(name)
        if like is None or like.shape != parameter.shape:
            assert torch.equal(parameter, fresh.get_parameter(name))
        elif parameter.requires_grad:
            assert torch.equal(parameter, like)
    assert "anew" in found.facts and "test cases" in found.facts["warning of start"]


def test_what_is_frozen_stays_as_it_is(settings, earlier):
    frozen = settings.model_copy(update={"train_encoder": False})
    found = started(frozen, ORGANS, SEED + 1, earlier).model
    fresh = build_model(frozen, ORGANS, SEED + 1)
    for name, parameter in found.named_parameters():
        if not parameter.requires_grad:
            assert torch.equal(parameter, fresh.get_parameter(name))


def test_another_model_or_a_damaged_one_is_refused(settings, earlier):
    other = settings.model_copy(update={"model": "samed"})
    with pytest.raises(UserError, match="was trained with model hsam, this is samed"):
        started(other, ORGANS, SEED, earlier)
    (earlier / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"train.start: .*model.safetensors: can't be read"):
        started(settings, ORGANS, SEED, earlier)

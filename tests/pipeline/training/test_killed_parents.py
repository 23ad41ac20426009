"""Trainings on two devices whose parent is killed: neither device's process goes on."""

from pathlib import Path

import pytest

from tests.pipeline.conftest import make_params
from tests.pipeline.kills import killed_parents
from tests.pipeline.trainings import (
    LONGEST,
    TINY,
    TWO_DEVICES,
    command,
    results_to_train,
    train_lock,
)


@pytest.fixture(scope="module")
def results(prepared_phantoms, phantom_params, tmp_path_factory) -> Path:
    dataset = phantom_params.dataset.model_dump()
    params = make_params(dataset=dataset, train=TINY | TWO_DEVICES, search={"trials": 0})
    return results_to_train(tmp_path_factory.mktemp("killed"), params, prepared_phantoms)


def test_no_devices_process_outlives_its_parent(results, tmp_path):
    program = command(results, tmp_path)
    assert killed_parents(program, lambda: train_lock(tmp_path), LONGEST, count=2, seed=4) > 0

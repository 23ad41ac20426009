"""A training on two devices, each with a process that reads, where /dev/shm is as good as full."""

import subprocess

import pytest

from tests.pipeline.conftest import ROOT, make_params
from tests.pipeline.trainings import TINY, TWO_DEVICES, command, results_to_train
from tests.soak import narrow

MOUNT = 'mount -t tmpfs -o size=200k tmpfs /dev/shm && exec "$@"'
SHORT = {"epochs": 1, "validate_every": 1}


@pytest.mark.skipif(not narrow.possible(), reason="no file system can be mounted here")
def test_two_devices_are_trained_without_readers(prepared_phantoms, phantom_params, tmp_path):
    dataset = phantom_params.dataset.model_dump()
    train = TINY | TWO_DEVICES | SHORT
    params = make_params(dataset=dataset, train=train, search={"trials": 0})
    results = results_to_train(tmp_path, params, prepared_phantoms)
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", MOUNT, "sh", *command(results, tmp_path / "runs")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = "/dev/shm has 0 MiB free, 1 processes that read slices need"
    assert done.stderr.count(said) == 2  # once a device
    assert (results / "train" / "model.safetensors").is_file()

"""Trainings on two devices whose parent is killed: neither device's process goes on."""

from pathlib import Path

import pytest

from pipeline.core.files import write_text
from pipeline.core.params.render import render
from tests.pipeline.conftest import make_params, split_and_search
from tests.pipeline.kills import killed_parents
from tests.pipeline.training.test_interruptions import COMMAND, TINY

LONGEST = 6.0  # seconds: the imports of the processes and the first steps


@pytest.fixture(scope="module")
def results(prepared_phantoms, phantom_params, tmp_path_factory) -> Path:
    """A results folder up to the stage search, with params.yaml beside it."""
    folder = tmp_path_factory.mktemp("killed") / "results"
    dataset = phantom_params.dataset.model_dump()
    train = {**TINY, "model": "samed", "devices": 2, "epochs": 12, "validate_every": 6}
    params = make_params(dataset=dataset, train=train, search={"trials": 0})
    write_text(folder.parent / "params.yaml", render(params))
    folder.mkdir()
    (folder / "prepare").symlink_to(prepared_phantoms)
    split_and_search(params, prepared_phantoms, folder)
    return folder


def kills(results: Path, runs: Path, count: int, seed: int) -> None:
    """Kill the parent of a training `count` times; a long form of the test has a larger count."""

    def lock() -> Path | None:
        return next(runs.glob("*-train-*/.lock"), None)

    options = ["--params", results.parent / "params.yaml", "--results", results, "--runs", runs]
    command = [*COMMAND, *map(str, options)]
    assert killed_parents(command, lock, LONGEST, count, seed) > 0


def test_no_devices_process_outlives_its_parent(results, tmp_path):
    kills(results, tmp_path, count=2, seed=4)

"""A run of every stage before the report, for the tests of the report."""

import shutil
from pathlib import Path

import pytest

from pipeline.core.params.load import overlay, validate
from pipeline.stages import evaluate, search, split, train


@pytest.fixture(scope="session")
def run_params(phantom_params):
    changes = {
        "train": {"image_size": 32, "epochs": 2, "validate_every": 2},
        "search": {"trials": 2, "epochs": 1},
        "report": {"slices": 3},
    }
    return validate(overlay(phantom_params.model_dump(mode="json"), changes), "test")


@pytest.fixture(scope="session")
def run_results(run_params, prepared_phantoms, tmp_path_factory) -> Path:
    """Published folders of every stage before the report; read only."""
    root = tmp_path_factory.mktemp("run")
    out, runs = root / "results", root / "runs"
    shutil.copytree(prepared_phantoms, out / "prepare")
    split.run(run_params, out / "prepare", out / "split", runs)
    prepared = out / "prepare", out / "split"
    search.run(run_params, *prepared, out / "search", runs, device="cpu")
    train.run(run_params, *prepared, out / "search", out / "train", runs, device="cpu")
    evaluate.run(run_params, *prepared, out / "train", out / "evaluate", runs, device="cpu")
    return out

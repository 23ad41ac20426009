"""A stage whose outputs are there says so before PyTorch is imported or a GPU is leased."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.files import write_text
from pipeline.core.params.render import render
from pipeline.stages import evaluate, prepare, search, split, train
from tests.pipeline.conftest import make_params

TINY = {
    "model": "unet",
    "model_options": {"features": [2, 2, 4, 4, 8, 2]},
    "image_size": 32,
    "epochs": 1,
    "batch_size": 8,
}
ONE_TRIAL = {"trials": 1, "epochs": 1, "space": {"lora_rank": None, "lambda_start": None}}
ASKED = """
import sys
from pipeline.cli import main
try:
    main()
finally:
    print("imported", *(name for name in ("torch", "lightning_fabric") if name in sys.modules))
"""


@pytest.fixture(scope="module")
def finished(phantom_params, tmp_path_factory) -> Path:
    """A folder with params.yaml, and results and runs of every stage up to evaluate; read only."""
    folder = tmp_path_factory.mktemp("finished")
    dataset = phantom_params.dataset.model_dump()
    params = make_params(dataset=dataset, train=TINY, search=ONE_TRIAL)
    write_text(folder / "params.yaml", render(params))
    results, runs = folder / "results", folder / "runs"
    prepared, roles, best, model, scores = (
        results / name for name in ("prepare", "split", "search", "train", "evaluate")
    )
    prepare.run(params, prepared, runs)
    split.run(params, prepared, roles, runs)
    search.run(params, prepared, roles, best, runs, device="cpu")
    train.run(params, prepared, roles, best, model, runs, device="cpu")
    evaluate.run(params, prepared, roles, model, scores, runs, device="cpu")
    return folder


@pytest.mark.parametrize("stage", ["prepare", "split", "search", "train", "evaluate"])
def test_nothing_is_imported_or_leased_for_what_is_done(finished, tmp_path, stage):
    gpus = ["--gpus", "1"] if stage in ("search", "train", "evaluate") else []
    done = subprocess.run(
        [sys.executable, "-c", ASKED, stage, *gpus],
        cwd=finished,
        # a device that a lease would take, and an empty folder for its lock
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "0", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert f"{stage}: already done" in done.stderr
    assert done.stdout.split("imported")[1].split() == []
    assert not list(tmp_path.glob("hsam-gpu-*"))

"""Small trainings as processes of their own, which can be killed."""

import sys
from pathlib import Path

from pipeline.core.files import write_text
from pipeline.core.params.blocks import Params
from pipeline.core.params.render import render
from tests.pipeline.conftest import split_and_search

TINY = {
    "image_size": 32,
    "epochs": 4,
    "batch_size": 6,
    "micro_batch": 4,
    "ema_decay": 0.9,
    "validate_every": 2,
    "keep": "best",
    "checkpoint_minutes": 0.0,
    "workers": 1,
    "cache_mib": 0,
}
# over what TINY says: a training that lasts, by two processes
TWO_DEVICES = {"model": "samed", "devices": 2, "epochs": 12, "validate_every": 6}
LONGEST = 6.0  # seconds: the imports of its processes and their first steps
COMMAND = [sys.executable, "-c", "from pipeline.cli import main; main()", "train", "--gpus", "0"]


def command(results: Path, runs: Path) -> list[str]:
    """Trains with the params.yaml beside a results folder."""
    options = ["--params", results.parent / "params.yaml", "--results", results, "--runs", runs]
    return [*COMMAND, *map(str, options)]


def results_to_train(folder: Path, params: Params, prepared: Path) -> Path:
    """A results folder up to the stage search, with params.yaml beside it."""
    write_text(folder / "params.yaml", render(params))
    results = folder / "results"
    results.mkdir()
    (results / "prepare").symlink_to(prepared)
    split_and_search(params, prepared, results)
    return results


def train_lock(runs: Path) -> Path | None:
    """The lock of a training's run folder; None before there is one."""
    return next(runs.glob("*-train-*/.lock"), None)

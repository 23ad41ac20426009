"""`profiles/slurm` through a whole submission, on a stand-in for Slurm that runs the job here."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.core.params.load import load
from pipeline.stages import search, split, train
from tests.workflow.conftest import ROOT, prepare_phantoms, run

pytestmark = [
    pytest.mark.skipif(
        not find_spec("snakemake_executor_plugin_slurm"),
        reason="needs snakemake-executor-plugin-slurm",
    ),
    pytest.mark.skipif(sys.platform != "linux", reason="the stand-in reads /proc"),
]
TINY = """
dataset: {phantom: {cases: 4, size: 32}}
split: {slices: null, validation: 0.3}
train: {image_size: 32, epochs: 3, validate_every: 1, checkpoint_minutes: 0}
search: {trials: 0}
"""
COMMANDS = ("sbatch", "srun", "sacct", "scancel", "sacctmgr", "sshare", "scontrol", "sinfo")


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """The stand-in's folder; its commands come first on the PATH."""
    folder, binaries = tmp_path / "slurm", tmp_path / "bin"
    for path in (folder, binaries):
        path.mkdir()
    for name in COMMANDS:
        script = binaries / name
        script.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
            "from tests.workflow import stand_in_slurm\nsys.exit(stand_in_slurm.main())\n"
        )
        script.chmod(0o755)
    monkeypatch.setenv("STAND_IN_SLURM", str(folder))
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    return folder


@pytest.fixture
def split_done(tmp_path, monkeypatch) -> Path:
    """A folder in which everything before the training is done."""
    folder = tmp_path / "work"
    monkeypatch.chdir(tmp_path)  # back to where it was, at the end
    params, results, runs = prepare_phantoms(folder, TINY), Path("results"), Path("runs")
    split.run(params, results / "prepare", results / "split", runs)
    folders = (results / name for name in ("prepare", "split", "search"))
    search.run(params, *folders, runs, device="cpu")
    return folder


def test_a_preempted_training_goes_on_once(split_done, slurm):
    (slurm / "preempt").write_text("runs/*-train-*/**/checkpoint-*.pt")
    options = ("--profile", str(ROOT / "profiles" / "slurm"), "--config", "threads=1")
    soon = ("--slurm-init-seconds-before-status-checks", "1")
    weights = split_done / "results" / "train" / "model.safetensors"
    printed = run(
        split_done,
        *("snakemake", "--snakefile", str(ROOT / "Snakefile"), *options, *soon, "--"),
        *(str(weights.relative_to(split_done)),),
    )
    (asked,) = (slurm / "submitted").read_text().splitlines()
    for option in ("--gpus=1", "--requeue", "--mem 16000", "-t 1440", "--cpus-per-task=1"):
        assert option in asked
    assert len((slurm / "1.starts").read_text().splitlines()) == 2
    assert (slurm / "1.state").read_text() == "COMPLETED"
    assert "train: goes on after step" in (split_done / "logs" / "train.log").read_text(), printed
    params, runs = load([Path("params.yaml")]), split_done / "other"
    folders = (split_done / "results" / name for name in ("prepare", "split", "search"))
    train.run(params, *folders, split_done / "undisturbed", runs, device="cpu")
    undisturbed = split_done / "undisturbed" / "model.safetensors"
    assert weights.read_bytes() == undisturbed.read_bytes()

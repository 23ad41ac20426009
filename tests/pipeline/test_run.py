"""`hsam run`: all stages in their order, as the engines have them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.cli.app import app
from pipeline.cli.help import STAGES as GROUP
from tests.pipeline.test_cli import COMMAND, ROOT, STAGES, hsam, refused

SMALL = """
dataset: {root: data, phantom: {cases: 4, size: 32}}
split: {validation: 0.0}
train:
  model: unet
  model_options: {features: [4, 4, 4, 4, 4, 4]}
  image_size: 32
  epochs: 20
  validate_every: 0
  checkpoint_minutes: 0.0
search: {trials: 0}
"""


def finish(folder: Path) -> subprocess.CompletedProcess:
    done = hsam("run", "small.yaml", "--jobs", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory) -> Path:
    """A folder with a parameter file, in which a run was interrupted in its training."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "small.yaml").write_text(SMALL)
    command = [*COMMAND, "run", "small.yaml", "--jobs", "1"]
    running = subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert running.stderr is not None
    for line in running.stderr:
        if line.startswith("train ") and "epoch" in line:
            os.killpg(running.pid, signal.SIGINT)
            break
    rest = running.stderr.read()
    assert running.wait() == 128 + signal.SIGINT
    assert "the same command goes on from here" in rest
    assert not (folder / "results" / "train").exists()
    return folder


def test_an_interrupted_run_goes_on_and_a_finished_one_is_found_done(interrupted):
    done = finish(interrupted)
    places = [line for line in done.stderr.splitlines() if line.startswith("run: ")]
    assert places == [f"run: {name}, {place} of 6" for place, name in enumerate(STAGES, 1)]
    assert "prepare: already done" in done.stderr
    assert "train: already done" not in done.stderr
    # the table of organs, the page, and what to do with them
    assert "pancreas" in done.stdout
    assert "report: reports/report.html" in done.stdout
    assert (interrupted / "reports" / "report.html").is_file()
    assert "next: hsam predict SCAN --run results/train" in done.stderr
    again = finish(interrupted)
    assert again.stderr.count("already done in") == len(STAGES)
    # and the engines find the same run folders and outputs
    engine = [sys.executable, "-m", "snakemake", "-n", "-s", str(ROOT / "Snakefile")]
    planned = subprocess.run(
        [*engine, "--configfile", "small.yaml"], cwd=interrupted, capture_output=True, text=True
    )
    assert "Nothing to be done" in planned.stdout + planned.stderr, planned.stderr


def test_what_a_later_stage_would_refuse_is_said_before_the_first(tmp_path):
    weights = "train: {backbone: vit_b, sam_checkpoint: auto, train_encoder: false}\n"
    (tmp_path / "my.yaml").write_text(weights)
    assert "`hsam weights get vit_b`" in refused(hsam("run", "my.yaml", cwd=tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["my.yaml"]
    assert "there is no such parameter file" in refused(hsam("run", "your.yaml", cwd=tmp_path))


def test_every_stage_of_the_house_is_run():
    stages = [entry for entry in app.registered_commands if entry.rich_help_panel == GROUP]
    assert tuple(entry.name for entry in stages) == STAGES

"""Rows of `dvc exp show` in a small project whose stages are the workflow's in name and files."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core.params.blocks import Params
from pipeline.core.params.load import validate
from pipeline.core.params.render import render
from pipeline.versioning import experiments
from pipeline.versioning.experiments import HEADLINE, Finished

ROOT = Path(__file__).resolve().parents[3]
STAGES = {
    "train": {
        "cmd": "false",
        "params": ["train"],
        "deps": ["pipeline"],
        "outs": ["results/train/model.safetensors"],
    },
    "evaluate": {
        "cmd": "false",
        "deps": ["results/train/model.safetensors"],
        "outs": ["results/evaluate/predictions"],
        "metrics": [{HEADLINE: {"cache": False}}],
    },
    "report": {
        "cmd": "false",
        "deps": ["results/evaluate/predictions"],
        "outs": ["reports/report.html"],
    },
}


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    ).stdout


def dvc(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["dvc", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def params_of(epochs: int) -> Params:
    return validate({"train": {"epochs": epochs}}, "")


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    for name in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@localhost")
    git(tmp_path, "init", "--quiet")
    dvc(tmp_path, "init", "--quiet")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "hsam").mkdir()
    (tmp_path / "pipeline" / "stage.py").write_text("pass\n")
    (tmp_path / ".gitignore").write_text("/runs\n/results\n!/results/evaluate\n/reports\n")
    (tmp_path / "params.yaml").write_text(render(params_of(1)))
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": STAGES}))
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def finished(repository: Path, epochs: int) -> Finished:
    """A run of so many epochs, published where an arm of a study is."""
    place = repository / "runs" / f"arm-{epochs}"
    (place / "train").mkdir(parents=True, exist_ok=True)
    (place / "train" / "model.safetensors").write_text(f"weights {epochs}")
    predictions = place / "evaluate" / "predictions"
    predictions.mkdir(parents=True, exist_ok=True)
    (predictions / "a b.nii.gz").write_text(f"labels {epochs}")
    (place / "evaluate" / "headline.json").write_text(f'{{"mean_dice": 0.{epochs}}}')
    folders = {name: place / name for name in ("train", "evaluate")}
    return Finished(f"arm-{epochs}", params_of(epochs), folders)


def rows(repository: Path) -> dict[str, tuple]:
    found = {}
    for item in json.loads(dvc(repository, "exp", "show", "--json")):
        for experiment in item["experiments"] or []:
            data = experiment["revs"][0]["data"]
            found[experiment["name"]] = (
                data["params"]["params.yaml"]["data"]["train"]["epochs"],
                data["metrics"][HEADLINE]["data"]["mean_dice"],
            )
    return found


def test_each_recorded_run_is_a_row_and_recorded_twice_it_is_one(repository):
    runs = [finished(repository, epochs) for epochs in (2, 3)]
    assert experiments.record(runs, repository) == ["arm-2", "arm-3"]
    assert experiments.record(runs[:1], repository) == ["arm-2"]
    assert rows(repository) == {"arm-2": (2, 0.2), "arm-3": (3, 0.3)}
    assert git(repository, "status", "--porcelain") == ""
    assert not (repository / "dvc.lock").exists()


def test_applying_a_row_restores_parameters_and_outputs(repository):
    for epochs in (2, 3):
        experiments.record([finished(repository, epochs)], repository)
    for epochs in (2, 3):
        dvc(repository, "exp", "apply", f"arm-{epochs}")
        assert (repository / "params.yaml").read_text() == render(params_of(epochs))
        model = repository / "results" / "train" / "model.safetensors"
        assert model.read_text() == f"weights {epochs}"
        labels = repository / "results" / "evaluate" / "predictions" / "a b.nii.gz"
        assert labels.read_text() == f"labels {epochs}"
        # the arm has no report of its own, which alone is left to do
        assert list(json.loads(dvc(repository, "status", "--json"))) == ["report"]


def test_recording_at_once_leaves_a_row_each(repository):
    runs = [finished(repository, epochs) for epochs in range(2, 6)]
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(
                subprocess.run,
                [sys.executable, "-c", CODE.format(epochs=run.params.train.epochs)],
                cwd=repository,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                check=True,
            )
            for run in runs
        ]
        for future in asked:
            future.result()
    assert rows(repository) == {f"arm-{n}": (n, n / 10) for n in range(2, 6)}


CODE = """
from pathlib import Path
from pipeline.versioning import experiments
from tests.pipeline.versioning.test_experiments import finished
experiments.record([finished(Path.cwd(), {epochs})], Path.cwd())
"""


def test_a_name_says_what_differs_from_the_committed_parameters(repository):
    run = finished(repository, 2)
    name = experiments.name_of(run.params, run.folders["evaluate"], repository)
    assert name.startswith("phantom-hsam-epochs-2-")
    same = experiments.name_of(params_of(1), run.folders["evaluate"], repository)
    assert same.startswith("phantom-hsam-") and len(same) == len("phantom-hsam-0123")


def test_a_name_is_short_and_names_no_case(repository):
    run = finished(repository, 2)
    cases = [f"patient{number:03}" for number in range(60)]
    changes = {
        "dataset": {"root": "data/" + "x" * 200, "cases": cases},
        "split": {"test": cases[:9]},
    }
    run = replace(run, params=validate(changes, ""))
    name = experiments.name_of(run.params, run.folders["evaluate"], repository)
    assert "cases-60" in name and "test-9" in name and "patient" not in name and len(name) < 200
    assert experiments.record([replace(run, name=name)], repository) == [name]
    assert name in rows(repository)


def test_nothing_is_recorded_where_dvc_does_it_or_there_is_no_repository(
    repository, tmp_path_factory, monkeypatch
):
    run = finished(repository, 2)
    assert experiments.record([run], tmp_path_factory.mktemp("plain")) == []
    monkeypatch.setenv("DVC_EXP_NAME", "b")
    assert experiments.record([run], repository) == []

import json
import subprocess

import pytest

from pipeline.reporting import experiments

METRICS = "results/evaluate/metrics.json"


def git(folder, *arguments):
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name in ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    for role in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{role}_NAME", "test")
        monkeypatch.setenv(f"GIT_{role}_EMAIL", "test@localhost")
    git(tmp_path, "init", "--quiet")
    subprocess.run(["dvc", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / "params.yaml").write_text("train: {epochs: 1}\n")
    stage = {"cmd": "true", "params": ["train"], "metrics": [{METRICS: {"cache": False}}]}
    (tmp_path / "dvc.yaml").write_text(json.dumps({"stages": {"evaluate": stage}}))
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def rows(repository) -> dict[str, tuple]:
    done = subprocess.run(
        ["dvc", "exp", "show", "--json"], cwd=repository, check=True, capture_output=True, text=True
    )
    (base,) = [item for item in json.loads(done.stdout) if item["rev"] != "workspace"]
    found = {}
    for experiment in base["experiments"] or []:
        data = experiment["revs"][0]["data"]
        found[experiment["name"]] = (
            data["params"]["params.yaml"]["data"]["train"]["epochs"],
            data["metrics"][METRICS]["data"]["mean_dice"],
        )
    return found


def test_each_recorded_run_is_a_row_of_dvc_exp_show(repository):
    for epochs in (2, 3):
        texts = {
            "params.yaml": f"train: {{epochs: {epochs}}}\n",
            METRICS: f'{{"mean_dice": 0.{epochs}}}',
        }
        assert experiments.record(f"phantom-{epochs}", texts, repository)
        assert experiments.record(f"phantom-{epochs}", texts, repository)
    assert rows(repository) == {"phantom-2": (2, 0.2), "phantom-3": (3, 0.3)}
    assert git(repository, "status", "--porcelain") == ""


def test_nothing_is_recorded_where_dvc_does_it_or_there_is_no_repository(
    repository, tmp_path_factory, monkeypatch
):
    assert not experiments.record("a", {}, tmp_path_factory.mktemp("plain"))
    monkeypatch.setenv("DVC_EXP_NAME", "b")
    assert not experiments.record("a", {}, repository)

"""`profiles/kubernetes` through a submission, on a stand-in for kubectl that runs the job here."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT, prepare_phantoms, run

STAND_IN = ROOT / "tests" / "workflow" / "stand_in_kubectl.py"
PROFILE = ROOT / "profiles" / "kubernetes"
TINY = """
dataset: {phantom: {cases: 4, size: 32}}
split: {slices: null}
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Path:
    """The stand-in's folder; its kubectl comes first on the PATH."""
    folder, binaries = tmp_path / "cluster", tmp_path / "bin"
    for path in (folder, binaries):
        path.mkdir()
    script = binaries / "kubectl"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("STAND_IN_KUBECTL", str(folder))
    monkeypatch.setenv("PATH", f"{binaries}:{os.environ['PATH']}")
    return folder


def job(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(PROFILE / "job.py"), *words]
    return subprocess.run(command, capture_output=True, text=True)


def manifest(cluster: Path) -> dict:
    (path,) = cluster.glob("*.json")
    return json.loads(path.read_text())


def jobscript(folder: Path, command: str) -> str:
    """As Snakemake writes one for a training on two GPUs."""
    resources = {"mem_mb": 16000, "runtime": 1440, "gpu": 2}
    properties = {"rule": "study_train", "threads": 16, "resources": resources}
    path = folder / "snakejob.sh"
    path.write_text(f"#!/bin/sh\n# properties = {json.dumps(properties)}\n{command}\n")
    return str(path)


def test_a_job_asks_for_what_its_rule_asks_for(cluster, tmp_path):
    name = job("submit", jobscript(tmp_path, "exit 0")).stdout.strip()
    found = manifest(cluster)
    assert found["metadata"]["name"] == name
    assert name.startswith("hsam-study-train-")
    assert found["spec"]["activeDeadlineSeconds"] == 86400
    (container,) = found["spec"]["template"]["spec"]["containers"]
    limits = {"memory": "16000M", "nvidia.com/gpu": "2"}
    assert container["resources"] == {"limits": limits, "requests": {"cpu": "16", **limits}}


@pytest.mark.parametrize(("command", "expected"), [("exit 0", "success"), ("exit 3", "failed")])
def test_the_status_of_a_job_is_how_it_ended(cluster, tmp_path, command, expected):
    held = f'while [ -e "{tmp_path}/held" ]; do sleep 0.01; done; {command}'
    (tmp_path / "held").touch()
    name = job("submit", jobscript(tmp_path, held)).stdout.strip()
    assert job("status", name).stdout == "running\n"
    (tmp_path / "held").unlink()
    while (found := job("status", name).stdout) == "running\n":
        pass
    assert found == f"{expected}\n"
    assert job("status", "hsam-gone-00000000").stdout == "failed\n"


def test_a_missing_kubectl_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = job("status", "hsam-train-00000000")
    assert done.returncode == 1
    assert done.stderr == "kubectl: not found; install it where Snakemake runs.\n"


def test_a_cluster_that_cannot_be_reached_refuses_jobs_and_says_nothing_of_those_there(
    cluster, tmp_path, monkeypatch
):
    monkeypatch.setenv("STAND_IN_KUBECTL", str(tmp_path / "away"))
    done = job("submit", jobscript(tmp_path, "exit 0"))
    assert done.returncode == 1 and done.stderr.startswith("kubectl create -f -: ")
    (tmp_path / "bin" / "kubectl").write_text("#!/bin/sh\necho no route >&2\nexit 1\n")
    done = job("status", "hsam-train-00000000")
    assert done.stdout == "running\n"
    assert done.stderr.endswith(": no route\n")


@pytest.mark.skipif(
    not find_spec("snakemake_executor_plugin_cluster_generic"),
    reason="needs snakemake-executor-plugin-cluster-generic",
)
def test_a_stage_runs_as_a_job(cluster, tmp_path, monkeypatch):
    folder = tmp_path / "work"
    monkeypatch.chdir(tmp_path)  # back to where it was, at the end
    prepare_phantoms(folder, TINY)
    (folder / "profiles").symlink_to(ROOT / "profiles")
    options = ("--snakefile", str(ROOT / "Snakefile"), "--profile", str(PROFILE))
    run(folder, "snakemake", *options, "--", "results/split/split.json")
    assert (folder / "results" / "split" / "split.json").is_file()
    (container,) = manifest(cluster)["spec"]["template"]["spec"]["containers"]
    assert container["workingDir"] == str(folder)
    assert "hsam-split-" in manifest(cluster)["metadata"]["name"]

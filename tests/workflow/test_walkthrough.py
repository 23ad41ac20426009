"""The commands of docs/experiments.md, in their order, on the smallest phantoms."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.core.params.load import load
from tests.workflow.conftest import ROOT, copy_repository, run

TINY = {
    "dataset": {"phantom": {"cases": 4, "size": 32}},
    "split": {"slices": None, "validation": 0.3},
    "train": {"image_size": 32, "epochs": 1, "validate_every": 1},
    "search": {"trials": 0},
    "report": {"slices": 1},
}
QUEUE_SECONDS = 240


def commands(title: str) -> list[str]:
    """The commands below a title of the page."""
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {title}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]


def walk(folder: Path, title: str, **places: str) -> dict[str, str]:
    """Run a section's commands; command to what it prints. `places` stand for the page's."""
    printed = {}
    for command in commands(title):
        if command.startswith("cd "):
            folder = folder / command.removeprefix("cd ")
            continue
        real = command
        for name, place in places.items():
            real = real.replace(PLACES[name], place)
        printed[command] = run(folder, "bash", "-c", real)
        if command.startswith("dvc queue start"):
            wait_for_queue(folder)
    return printed


PLACES = {"store": "/mnt/store", "origin": "git@example.org:me/h-sam.git", "ranks": "1,4,8,16"}


def wait_for_queue(folder: Path) -> None:
    for _ in range(QUEUE_SECONDS):
        if not re.search(r"Queued|Running", run(folder, "dvc", "queue", "status")):
            return
        time.sleep(1)
    raise AssertionError(run(folder, "dvc", "queue", "status"))


def state(folder: Path) -> tuple[int, dict]:
    """LoRA rank of params.yaml, and what DVC finds changed."""
    rank = load([folder / "params.yaml"]).train.lora_rank
    return rank, json.loads(run(folder, "dvc", "status", "--json"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A repository with a git remote, in which the walk begins."""
    folder = copy_repository(tmp_path_factory.mktemp("walk"), TINY)
    run(folder, "git", "init", "--quiet", "--bare", str(folder) + ".git")
    run(folder, "git", "remote", "add", "origin", str(folder) + ".git")
    walk(folder, "From a run to versions", store=str(folder) + ".store")
    return folder


def test_a_grid_in_the_queue_is_compared_and_applied(repository):
    assert run(repository, "git", "status", "--porcelain") == ""
    printed = walk(repository, "A grid, two at a time", ranks="1,4")
    assert printed["dvc queue status"].count("Success") == 2
    (shown,) = (text for command, text in printed.items() if command.startswith("dvc exp show"))
    assert "rank-1" in shown and "rank-2" in shown
    assert "train.lora_rank" in shown and "train.epochs" not in shown
    compared = printed["dvc exp diff rank-1 rank-2"].split("lora_rank")[1].split()
    assert compared[:2] == ["1", "4"]
    assert "mean_dice" in printed["dvc metrics diff --all rank-1 rank-2"]
    page = (repository / "dvc_plots" / "index.html").read_text()
    assert '"rank-1"' in page and '"rank-2"' in page
    assert not re.search(r"""(src|href)\s*=\s*["']https?:""", page)
    assert "Running stage" not in printed["dvc repro"]
    assert state(repository) == (4, {})
    assert "dvc_plots" not in run(repository, "git", "status", "--porcelain")


def test_what_was_pushed_comes_back_elsewhere(repository, tmp_path):
    shutil.copytree(repository, tmp_path / "here", symlinks=True)
    printed = walk(tmp_path / "here", "Sharing", origin=str(repository) + ".git")
    assert "Running stage" not in printed["dvc repro"]
    copy = tmp_path / "here" / "copy"
    assert state(copy) == (1, {})
    assert (copy / "results" / "train" / "model.safetensors").is_file()


def test_outputs_go_to_s3_and_come_back(tmp_path, monkeypatch):
    if not all(importlib.util.find_spec(name) for name in ("moto", "dvc_s3", "boto3", "flask")):
        pytest.skip('pip install "dvc[s3]" "moto[server]" for a server of S3 on this machine')
    import boto3
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="hsam")
        folder = tmp_path / "project"
        folder.mkdir()
        dvc(folder, "init", "--no-scm", "--quiet")
        (folder / "weights").write_text("1 2 3")
        dvc(folder, "add", "--quiet", "weights")
        adding, modifying, pushing, pulling = commands("S3")
        dvc(folder, *adding.split()[1:])
        dvc(folder, *modifying.replace("https://s3.example.org", address).split()[1:])
        dvc(folder, *pushing.split()[1:])
        (folder / "weights").unlink()
        shutil.rmtree(folder / ".dvc" / "cache")
        dvc(folder, *pulling.split()[1:])
        assert (folder / "weights").read_text() == "1 2 3"
    finally:
        server.stop()


def dvc(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr

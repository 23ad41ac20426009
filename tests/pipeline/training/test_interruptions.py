"""Trainings that are killed and started again, as processes of their own."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.pipeline.conftest import ROOT, make_params
from tests.pipeline.trainings import TINY, command, results_to_train

WEIGHTS = Path("train", "model.safetensors")


@pytest.fixture(scope="module")
def results(prepared_phantoms, phantom_params, tmp_path_factory) -> Path:
    dataset = phantom_params.dataset.model_dump()
    params = make_params(dataset=dataset, train=TINY, search={"trials": 0})
    return results_to_train(tmp_path_factory.mktemp("interrupted"), params, prepared_phantoms)


def start(results: Path, runs: Path) -> subprocess.Popen:
    return subprocess.Popen(
        command(results, runs),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_step(process: subprocess.Popen, runs: Path, step: int) -> None:
    """Until a checkpoint after that step is there, or the process has ended."""
    while process.poll() is None and newest(runs) < step:
        time.sleep(0.005)


def newest(runs: Path) -> int:
    return max((int(p.name.split("-")[1]) for p in runs.glob("*/checkpoint-*-*")), default=0)


def finished(results: Path, runs: Path) -> bytes:
    process = start(results, runs)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return (results / WEIGHTS).read_bytes()


@pytest.fixture(scope="module")
def whole(results) -> tuple[bytes, int]:
    """Weights of a training that nothing interrupted, and its number of steps."""
    weights = finished(results, results.parent / "whole")
    history = (results / "train" / "history.csv").read_text().splitlines()
    return weights, int(history[-1].split(",")[1])


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 255
    path.write_bytes(data)


def test_killed_at_random_steps_it_ends_with_the_same_bytes(results, whole, tmp_path):
    weights, steps = whole
    points = sorted(random.Random(3).sample(range(2, steps - 1), 3))
    for point in points:
        process = start(results, tmp_path)
        wait_for_step(process, tmp_path, point)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert newest(tmp_path) >= point
    last = max(tmp_path.glob("*/checkpoint-*-*"))
    damage(last)
    process = start(results, tmp_path)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert f"warning: {last} is damaged; the checkpoint before it is used instead" in said
    assert (results / WEIGHTS).read_bytes() == weights


@pytest.mark.parametrize("send", [os.kill, os.killpg])  # to the training, or to its workers too
def test_asked_to_stop_it_ends_its_step_and_says_so(results, whole, tmp_path, send):
    process = start(results, tmp_path)
    wait_for_step(process, tmp_path, 3)
    send(process.pid, signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 143
    step = newest(tmp_path)
    assert said.splitlines()[-1] == (
        f"train: stopped after step {step}, on SIGTERM; the same command goes on from here"
    )
    assert finished(results, tmp_path) == whole[0]


def test_workers_do_not_outlive_a_killed_training(results, tmp_path):
    process = start(results, tmp_path)
    wait_for_step(process, tmp_path, 2)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert workers
    _, left = psutil.wait_procs(workers, timeout=4)  # PyTorch's own watch takes 5 s
    assert not left


def test_a_finished_training_says_so_and_does_nothing(results, whole):
    process = start(results, results.parent / "whole")
    _, said = process.communicate()
    assert process.returncode == 0
    done, closing = said.splitlines()
    assert "already done" in done and closing.startswith("train: ")

"""`hsam doctor`: what is wrong is found, and said with what mends it."""

import json
import subprocess
import sys

import pytest

from hsam.backbones import BACKBONES
from pipeline.commands import doctor
from pipeline.core import devices, installed
from tests.pipeline.test_cli import COMMAND


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HSAM_WEIGHTS", raising=False)


def found(*folders) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.checks(folders)}


def test_a_sound_installation_has_no_problem_and_ends_with_0(tmp_path):
    done = subprocess.run([*COMMAND, "doctor"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, last = done.stdout.splitlines()
    assert last == "no problems"
    assert {line.split()[0] for line in lines} <= {"ok", "note"}
    assert not list(tmp_path.iterdir())


def test_problems_end_with_1_as_lines_and_as_json(tmp_path):
    (tmp_path / "runs").write_text("in the way")
    done = subprocess.run([*COMMAND, "doctor"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "problem  folder runs: runs: expected a folder to write to" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 problem"
    command = [*COMMAND, "doctor", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    states = {check["name"]: check["state"] for check in json.loads(done.stdout)}
    assert (done.returncode, states["folder runs"]) == (1, "problem")


def test_damaged_weights_are_named_with_the_command_that_brings_them(tmp_path):
    file = tmp_path / "checkpoints" / BACKBONES["vit_b"].weights.name
    file.parent.mkdir()
    file.write_bytes(b"cut short")
    check = found()["weights vit_b"]
    assert check.state == "problem"
    assert "has 9 bytes" in check.found and "hsam weights get vit_b" in check.found


@pytest.mark.parametrize(
    ("line", "name", "state", "said"),
    [
        ("no-such-thing>=2", "packages", "problem", "no-such-thing>=2 is missing"),
        ("numpy>=99", "packages", "problem", "expected >=99"),
        ("numpy>=1", "packages", "ok", "1, of versions that fit"),
        ('numpy>=99; python_version < "3"', "packages", "ok", "1, of versions"),
        ('no-such-thing>=2; extra == "hf"', "extra hf", "note", "pip install 'hsam[hf]'"),
    ],
)
def test_packages_are_compared_with_what_is_asked_for(monkeypatch, line, name, state, said):
    monkeypatch.setattr(installed.metadata, "requires", lambda _: [line])
    monkeypatch.setattr(doctor, "_torch", lambda: ())
    check = found()[name]
    assert (check.state, said in check.found) == (state, True), check


def test_a_pytorch_that_fails_is_a_problem_with_its_last_words(monkeypatch):
    monkeypatch.setattr(doctor, "TRY_TORCH", "raise ImportError('libcudart.so: not there')")
    check = found()["pytorch"]
    assert check.state == "problem"
    assert "libcudart.so: not there" in check.found


@pytest.mark.parametrize(
    ("seen", "software", "visible", "state", "said"),
    [
        (2, "CUDA 12.8", None, "ok", "2 to compute on"),
        (0, None, None, "problem", "built for the CPU"),
        (0, "CUDA 12.8", None, "problem", "older than CUDA 12.8"),
        (0, "CUDA 12.8", "", "note", "CUDA_VISIBLE_DEVICES= hides them"),
    ],
)
def test_cards_that_pytorch_does_not_see(monkeypatch, seen, software, visible, state, said):
    monkeypatch.setattr(doctor, "TRY_TORCH", f"print({seen})")
    monkeypatch.setattr(installed, "pytorch", lambda: ("2.9", software))
    monkeypatch.setattr(devices, "gpus", lambda: [{"device": "cuda:0", "name": "a card"}])
    monkeypatch.setattr(devices, "hidden", lambda: visible)
    check = found()["gpu"]
    assert (check.state, said in check.found) == (state, True), check


def test_a_small_shared_memory_is_noted(monkeypatch):
    monkeypatch.setattr(devices, "free_shared_memory", lambda: 64 * 2**20)
    monkeypatch.setattr(doctor, "_torch", lambda: ())
    check = found()["shared memory"]
    assert check.state == "note" and "--shm-size" in check.found


def test_another_hsam_that_comes_first_is_noted(tmp_path, monkeypatch):
    program = tmp_path / "hsam"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(doctor, "_torch", lambda: ())
    check = found()["command"]
    assert check.state == "note"
    assert str(program) in check.found and str(sys.prefix) in check.found

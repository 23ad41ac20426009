import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.params.load import load, validate
from pipeline.core.params.render import render

ROOT = Path(__file__).resolve().parents[2]


COMMAND = [sys.executable, "-c", "from pipeline.cli import main; main()"]


def hsam(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "params.yaml").write_text(render(load([])))
    return tmp_path


def change(folder: Path, **changes: dict) -> None:
    (folder / "params.yaml").write_text(render(validate(changes, "")))


def refused(done: subprocess.CompletedProcess) -> str:
    """The message of a user's mistake, which must not be a traceback."""
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("command", ["prepare", "split", "search", "train", "evaluate", "report"])
def test_a_stage_without_its_inputs_says_what_is_missing_and_writes_nothing(folder, command):
    message = refused(hsam(command, cwd=folder))
    assert message.startswith("error: ")
    assert not (folder / "results").exists()
    assert not (folder / "reports").exists()


def test_bad_parameters_are_listed_and_end_with_2(folder):
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("seed: 42", "seed: -1\n  sed: 1"))
    message = refused(hsam("split", cwd=folder))
    assert "base.seed: -1" in message
    assert "base.sed: unknown key" in message


def test_a_missing_data_set_says_where_it_comes_from(folder):
    change(folder, dataset={"name": "synapse", "root": "nowhere"})
    message = refused(hsam("prepare", cwd=folder))
    assert "nowhere" in message
    assert "syn3193805" in message


def test_params_prints_what_the_files_say_together(folder):
    (folder / "more.yaml").write_text("train: {epochs: 7}\n")
    done = hsam("params", "--params", "params.yaml", "--params", "more.yaml", cwd=folder)
    assert done.returncode == 0
    assert "epochs: 7\n" in done.stdout


def test_params_completes_a_partial_file_and_writes_the_defaults_where_there_is_none(tmp_path):
    assert hsam("params", "--write", "params.yaml", cwd=tmp_path).returncode == 0
    defaults = (tmp_path / "params.yaml").read_text()
    assert defaults == render(load([]))
    (tmp_path / "params.yaml").write_text("train: {epochs: 7}")
    assert hsam("params", "--write", "params.yaml", cwd=tmp_path).returncode == 0
    assert (tmp_path / "params.yaml").read_text() == render(validate({"train": {"epochs": 7}}, ""))


def test_a_stage_runs_on_a_partial_file_but_not_on_none(tmp_path):
    message = refused(hsam("prepare", cwd=tmp_path))
    assert "params.yaml: there is no such file" in message and "hsam params --write" in message
    (tmp_path / "mine.yaml").write_text("dataset: {name: synapse, root: nowhere}")
    message = refused(hsam("prepare", "--params", "mine.yaml", cwd=tmp_path))
    assert "nowhere" in message and "syn3193805" in message


def test_comments_come_back_only_under_dvc_exp_run(folder, monkeypatch):
    text = (folder / "params.yaml").read_text()
    bare = "\n".join(line.split(" #")[0] for line in text.splitlines()) + "\n"
    (folder / "params.yaml").write_text(bare)
    hsam("split", cwd=folder)
    assert (folder / "params.yaml").read_text() == bare
    monkeypatch.setenv("DVC_EXP_NAME", "a-run")
    hsam("split", cwd=folder)
    assert (folder / "params.yaml").read_text() == text


def test_ctrl_c_is_one_sentence(tmp_path):
    command = [*COMMAND, "phantom", "--out", "raw", "--cases", "900", "--size", "64"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=_default_interrupt
    ) as process:
        process.stderr.readline()  # the first phantom is made
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted; the same command goes on from here"
    assert "Traceback" not in said


def _default_interrupt() -> None:
    """A background job of a shell ignores Ctrl-C, and so would what it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from pipeline.cli.app import app
from pipeline.core.params.load import load, validate
from pipeline.core.params.render import render

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = typer.main.get_command(app).commands
STAGES = ("prepare", "split", "search", "train", "evaluate", "report")

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


@pytest.mark.parametrize("command", STAGES)
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


def test_bad_values_that_dvc_wrote_are_taken_back_with_git(folder, monkeypatch):
    bad = (folder / "params.yaml").read_text().replace("epochs: 64", "epochs: 0")
    (folder / "params.yaml").write_text(bad)
    assert "git checkout" not in refused(hsam("split", cwd=folder))
    monkeypatch.setenv("DVC_EXP_NAME", "a-run")
    first, second = refused(hsam("split", "--params", "params.yaml", cwd=folder)).splitlines()
    assert first.startswith("error: params.yaml: train.epochs: 0")
    assert "`git checkout params.yaml` brings back" in second


def test_help_lists_every_command_in_its_group_with_a_whole_sentence(tmp_path):
    done = hsam("-h", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == hsam("--help", cwd=tmp_path).stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    for title in ("Stages", "Your own scans", "Scores and figures", "House-keeping"):
        assert f"\n{title}" in done.stdout
    words = " ".join(done.stdout.split())
    for name, command in COMMANDS.items():
        assert f"{name} {command.help.splitlines()[0]}" in words


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_of_a_command_is_one_that_it_takes(name):
    program, command, *arguments = COMMANDS[name].epilog.replace("\\\n", "").split()
    assert (program, command) == ("hsam", name)
    with COMMANDS[name].make_context(name, arguments):
        pass


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_in_plain_words_and_ends_with_the_example(tmp_path, name):
    lines = hsam(name, "-h", cwd=tmp_path).stdout.splitlines()
    text = "\n".join(lines)
    assert not any(cut in text for cut in ("<", "x>=", "list[", "PATH", "TEXT", "INTEGER"))
    example = COMMANDS[name].epilog.splitlines()
    assert [line.removeprefix("  ") for line in lines[-len(example) :]] == example
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("name", STAGES)
def test_all_stages_have_the_same_options(name):
    options = {option for param in COMMANDS[name].params for option in param.opts}
    assert {"--params", "--results", "--runs"} <= options


def test_the_version_is_the_librarys(tmp_path):
    import hsam as library

    assert hsam("--version", cwd=tmp_path).stdout == f"hsam {library.__version__}\n"


def test_names_are_completed(tmp_path):
    asked = {"_HSAM_COMPLETE": "complete_bash", "COMP_WORDS": "hsam pre", "COMP_CWORD": "1"}
    code = "from pipeline.cli import main; import sys; sys.argv[0] = 'hsam'; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | asked, capture_output=True, text=True
    )
    assert done.stdout.split() == ["prepare", "predict"]


def test_help_imports_nothing_that_takes_long(tmp_path):
    code = (
        "import sys; from pipeline.cli import main; sys.argv = ['hsam', '--help']\n"
        "try: main()\n"
        "except SystemExit: print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    imported = set(done.stderr.split())
    assert "pipeline.cli.app" in imported
    assert not imported & {"torch", "pydantic", "pandas", "numpy", "rich.console", "ruamel.yaml"}


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

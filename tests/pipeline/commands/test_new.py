"""`hsam new`: a project of one's own, which takes nothing away."""

import subprocess

import pytest
from ruamel.yaml import YAML

from pipeline.commands import new
from pipeline.core.errors import UserError
from pipeline.core.params.load import load
from tests.pipeline.conftest import ROOT, make_params
from tests.pipeline.test_cli import hsam


@pytest.fixture
def params():
    return make_params(train={"epochs": 7})


def test_parameters_presets_and_pins_are_written(tmp_path, params):
    new.run(tmp_path / "project", params)
    project = tmp_path / "project"
    assert load([project / "params.yaml"]) == params
    assert (project / "requirements.txt").read_text().startswith("hsam[pipeline]==")
    mine = {path.name for path in (project / "workflow" / "presets").iterdir()}
    assert mine == {path.name for path in (ROOT / "workflow" / "presets").iterdir()}
    assert (project / ".git").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["project"]


def test_stages_depend_on_the_pins_in_place_of_code():
    read = YAML(typ="safe").load
    clone = read((ROOT / "dvc.yaml").read_text())
    mine = read(new.dvc_yaml((ROOT / "dvc.yaml").read_text()))
    for name, stage in clone["stages"].items():
        data = [path for path in stage["deps"] if path.split("/")[0] not in ("hsam", "pipeline")]
        assert mine["stages"][name]["deps"] == ["requirements.txt", *data]
        assert {k: v for k, v in mine["stages"][name].items() if k != "deps"} == {
            k: v for k, v in stage.items() if k != "deps"
        }


def test_what_is_there_stays_and_a_list_of_ignored_files_grows(tmp_path, params):
    (tmp_path / "data").mkdir()
    (tmp_path / ".gitignore").write_text("secret.txt\n/data/\n")
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    new.run(tmp_path / "project", params)
    assert not (tmp_path / "project" / ".git").exists()  # it is in a repository
    new.run(tmp_path, params)
    ignored = (tmp_path / ".gitignore").read_text().splitlines()
    assert ignored[:2] == ["secret.txt", "/data/"] and "/runs/" in ignored
    assert ignored.count("/data/") == 1


def test_a_project_is_never_written_over(tmp_path, params):
    (tmp_path / "Snakefile").write_text("mine")
    with pytest.raises(UserError, match="has files of a project already, in Snakefile; name"):
        new.run(tmp_path, params)
    assert [path.name for path in tmp_path.iterdir()] == ["Snakefile"]
    assert (tmp_path / "Snakefile").read_text() == "mine"
    with pytest.raises(UserError, match="is the clone itself"):
        new.run(ROOT, params)


def test_without_git_dvc_is_told_so(tmp_path, params, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    new.run(tmp_path / "project", params)
    assert "no_scm = true" in (tmp_path / "project" / ".dvc" / "config").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["new", "project", "--preset", "nope"], "nope.yaml: there is no such parameter file"),
        (["new", "file"], "file: expected a folder to write to"),
    ],
)
def test_mistakes_end_with_2_and_leave_nothing(tmp_path, arguments, sentence):
    (tmp_path / "file").write_text("")
    done = hsam(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

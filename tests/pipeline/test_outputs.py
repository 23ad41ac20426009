"""Where a command can't write: one sentence and exit code 2, before anything is computed."""

import resource
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import cli
from pipeline.core.errors import UserError
from pipeline.imaging.geometry import Geometry
from pipeline.inference.probabilities import open_probabilities

# each command with an option for what it writes; what it would read isn't there
FOLDERS = {
    "prepare": "--results",
    "split": "--results",
    "search": "--runs",
    "train": "--runs",
    "evaluate": "--results",
    "report": "--reports",
    "predict scan.nii --run run": "--out",
    "import-checkpoint --adapter a.pth --sam s.pth --preset synapse-10pct": "--out",
    "export --run run": "--out",
    "pull hf:owner/name": "--runs",
    "score --truth t --prediction p --labels l.json": "--out",
    "compare a b": "--out",
    "figures a b": "--out",
    "phantom --cases 3": "--out",
}
FILES = {"check": "--out", "params": "--write"}


def refused(monkeypatch, capsys, command: str, option: str, place: Path | str) -> str:
    monkeypatch.setattr(sys, "argv", ["hsam", *command.split(), option, str(place)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    said = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2 and len(said) == 1
    return said[0]


@pytest.mark.parametrize(("command", "option"), (FOLDERS | FILES).items())
def test_a_place_where_nothing_can_be_written(tmp_path, monkeypatch, capsys, command, option):
    monkeypatch.chdir(tmp_path)
    Path("taken").write_text("old")
    inside = "" if command in FOLDERS else "/a.csv"
    for place in (f"taken{inside}", "taken/below/a.csv", "/proc/none/a.csv"):
        said = refused(monkeypatch, capsys, command, option, place)
        assert said.startswith(f"error: {place.removesuffix(inside)}")
        assert "expected a folder to write to" in said or "can't be written" in said
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as on a full disk
    try:
        said = refused(monkeypatch, capsys, command, option, "new/a.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "can't be written (file too large); make room" in said
    assert Path("taken").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(("command", "option"), FILES.items())
def test_a_folder_in_the_place_of_a_file(tmp_path, monkeypatch, capsys, command, option):
    said = refused(monkeypatch, capsys, command, option, tmp_path)
    assert (
        said == f"error: {tmp_path}: expected a file to write, it is a folder; name another file."
    )


def test_a_refusal_of_the_system_is_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "results" / "evaluate" / "metrics.json").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    said = refused(monkeypatch, capsys, "summary", "--results", "results")
    assert "metrics.json" in said


def test_probabilities_without_room_are_refused_before_they_are_mapped(tmp_path):
    geometry = Geometry((64, 64, 64), np.eye(4))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    refused = pytest.raises(UserError, match=r"a.nii.gz: can't be written \(file too large\)")
    wanted = open_probabilities(tmp_path / "a.nii.gz", 3, (64, 64, 64), geometry, "IPL")
    try:
        with refused, wanted:
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []

"""`hsam init`: from a folder of scans to a parameter file."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline.commands import init
from pipeline.core.errors import UserError
from pipeline.core.params.load import load
from tests.pipeline.planning.folders import write_nnunet
from tests.pipeline.test_cli import hsam, refused


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with five small cases in raw/."""
    folder = tmp_path_factory.mktemp("init")
    write_nnunet(folder / "raw", shape=(40, 44, 12))
    return folder


def plan(raw: Path, out: Path, *, encoder: str | None = None, as_json: bool = False) -> None:
    init.run(raw, out, gpus=0, encoder=encoder, steps=2, jobs=1, as_json=as_json)


def test_a_file_with_reasons_that_runs_as_it_is(folder):
    done = hsam("init", "raw", "--out", "toy.yaml", "--steps", "2", "--jobs", "1", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Toy (nnunet): 5 cases" in done.stdout
    assert "liver: in 5 cases, median 0.024 ml" in done.stdout
    assert "of training on an idle machine" in done.stdout
    assert "hsam run toy.yaml" in done.stderr
    lines = (folder / "toy.yaml").read_text().splitlines()
    keys = [line for line in lines if line.startswith("  ") and line[-1] != ":"]
    assert len(keys) > 20
    assert all(" # " in line for line in keys)
    assert load([folder / "toy.yaml"]).train.model == "unet"
    ran = hsam("run", "toy.yaml", "--jobs", "1", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    assert "liver" in ran.stdout
    assert (folder / "reports" / "report.html").is_file()
    assert (folder / "results" / "train" / "model.safetensors").is_file()


def test_the_same_data_give_the_same_file_and_json_says_all_of_it(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    plan(Path("raw"), Path("a.yaml"), as_json=True)
    told = json.loads(capsys.readouterr().out)
    plan(Path("raw"), Path("b.yaml"))
    assert Path("a.yaml").read_bytes() == Path("b.yaml").read_bytes()
    assert Path("a.html").read_text() == Path("b.html").read_text().replace("b.yaml", "a.yaml")
    assert (told["file"], told["page"]) == ("a.yaml", "a.html")
    assert told["params"]["dataset"] == {"name": "nnunet", "root": "raw", "labels": None}
    assert set(told["reasons"]) >= {"train.epochs", "split.test", "prepare.intensity"}
    assert told["expected"]["training_seconds"] > 0
    assert told["expected"]["memory_mib"] > 0
    assert [case["case"] for case in told["fingerprint"]["cases"]] == [f"c{n}" for n in range(5)]


def test_what_cannot_be_used_is_one_sentence_and_nothing_is_written(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def message(name: str, out: str = "my.yaml", encoder: str | None = None) -> str:
        with pytest.raises(UserError) as caught:
            plan(Path(name), Path(out), encoder=encoder)
        assert len(caught.value.problems) == 1
        assert not Path("my.yaml").exists()
        return caught.value.problems[0]

    Path("empty").mkdir()
    assert "empty: nothing that can be read as scans with labels" in message("empty")
    assert "nowhere: expected a folder" in message("nowhere")
    first, second = (Path(shutil.copytree(folder / "raw", f"two/{name}")) for name in "ab")
    assert "holds several data sets, two/a, two/b" in message("two")
    (first / "Training" / "img").mkdir(parents=True)
    shutil.copyfile(first / "labelsTr" / "c0.nii.gz", first / "Training/img/img0001.nii.gz")
    assert "files of several data sets, synapse and nnunet" in message("two/a")
    for image in (second / "imagesTr").iterdir():
        image.unlink()
    assert "5 labels have no image (c0, c1, c2, c3, c4)" in message("two/b")
    shutil.rmtree(first)
    assert "holds one data set, two/b; name the folder to use" in message("two")
    shutil.move("two", "deep/disk/sets")
    assert "deep: holds one data set, deep/disk/sets/b; name" in message("deep")
    (Path("notes") / "a.txt").parent.mkdir()
    (Path("notes") / "a.txt").write_text("no scans")
    assert "1 file, no volume among them. Expected below it the files of one" in message("notes")
    shutil.copytree(folder / "raw" / "imagesTr", "images/only")
    assert "5 volumes, such as only/c0_0000.nii.gz, but none with" in message("images")
    Path("mine.yaml").write_text("train: {epochs: 3}\n")
    assert "mine.yaml: is there already" in message("empty", "mine.yaml")
    assert Path("mine.yaml").read_text() == "train: {epochs: 3}\n"
    Path("notes.html").write_text("mine")
    assert "notes.html: is there already" in message("empty", "notes.yaml")
    assert "expected one of unet, litemedsam" in message("two/b", encoder="vit_tiny")


def test_the_command_ends_with_2(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "nothing that can be read" in refused(hsam("init", "empty", cwd=tmp_path))

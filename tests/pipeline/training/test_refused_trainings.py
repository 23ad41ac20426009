"""What `hsam train` refuses: one sentence each, exit code 2, nothing overwritten."""

import json
import shutil
from pathlib import Path

import pytest

from hsam.backbones import BACKBONES
from pipeline import cli
from pipeline.core.files import write_text
from pipeline.core.params.render import render
from pipeline.shards.roles import SplitFile, read_split, write_split
from pipeline.stages import search, split
from tests.pipeline.conftest import ROOT, make_params

TINY = {"image_size": 32, "epochs": 1, "batch_size": 8, "validate_every": 0}
SAM = {"backbone": "vit_b", "train_encoder": False}


@pytest.fixture(scope="module")
def ready(prepared_phantoms, phantom_params, tmp_path_factory) -> Path:
    """A folder with params.yaml and results up to the stage search."""
    folder = tmp_path_factory.mktemp("ready")
    dataset = phantom_params.dataset.model_dump()
    params = make_params(dataset=dataset, train=TINY, search={"trials": 0})
    write_text(folder / "params.yaml", render(params))
    results = folder / "results"
    shutil.copytree(prepared_phantoms, results / "prepare")
    split.run(params, results / "prepare", results / "split", folder / "runs")
    stages = [results / name for name in ("prepare", "split", "search")]
    search.run(params, *stages, folder / "runs", device="cpu")
    return folder


@pytest.fixture
def work(ready, tmp_path, monkeypatch) -> Path:
    """A copy of it, with a model of an earlier training, as the current folder."""
    shutil.copytree(ready, tmp_path / "work")
    write_text(tmp_path / "work" / "results" / "train" / "model.json", "earlier")
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return tmp_path / "work"


def refused(monkeypatch, capsys, *options: str, **changes) -> str:
    """The one sentence with which a training with changed parameters is refused."""
    Path("changes.json").write_text(json.dumps({"train": changes}))
    files = ["--params", "params.yaml", "--params", "changes.json"]
    monkeypatch.setattr("sys.argv", ["hsam", "train", *files, *(options or ("--gpus", "0"))])
    runs = set(Path().glob("runs/*"))
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert set(Path().glob("runs/*")) == runs
    assert caught.value.code == 2
    assert Path("results/train/model.json").read_text() == "earlier"
    assert [path.name for path in Path("results/train").iterdir()] == ["model.json"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def test_an_unknown_backbone(work, monkeypatch, capsys):
    said = refused(monkeypatch, capsys, backbone="vit_x")
    assert "train.backbone: 'vit_x' is not allowed: input should be 'vit_b'" in said


def test_an_unknown_preset(work, monkeypatch, capsys):
    preset = ROOT / "workflow" / "presets" / "synapse-11pct.yaml"
    said = refused(monkeypatch, capsys, "--params", str(preset))
    assert f"{preset}: there is no such parameter file; in its folder are" in said
    assert "synapse-10pct-published.yaml, synapse-10pct.yaml" in said


def test_a_sam_file_that_is_not_there(work, monkeypatch, capsys):
    said = refused(monkeypatch, capsys, **SAM, sam_checkpoint="sam.pth")
    assert "train.sam_checkpoint: there is no file sam.pth; expected the weights of vit_b" in said


def test_a_sam_file_that_was_cut_short(work, monkeypatch, capsys):
    Path("sam_vit_b_01ec64.pth").write_bytes(b"PK" * 50)
    said = refused(monkeypatch, capsys, **SAM, sam_checkpoint="sam_vit_b_01ec64.pth")
    assert "has 100 bytes, a download cut short?; expected the weights of vit_b" in said


@pytest.mark.parametrize("name", ["sam_vit_b_01ec64.pth", "sam.pth"])
def test_a_sam_file_that_is_a_pointer_or_a_page(work, monkeypatch, capsys, name):
    Path(name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n")
    said = refused(monkeypatch, capsys, **SAM, sam_checkpoint=name)
    assert (
        f"train.sam_checkpoint: {name} is a pointer of Git LFS" in said and "git lfs pull" in said
    )
    Path(name).write_text("<!DOCTYPE html><title>403</title>")
    said = refused(monkeypatch, capsys, **SAM, sam_checkpoint=name)
    assert f"{name} is a web page" in said


def test_a_sam_file_of_another_name_that_was_cut_short(work, monkeypatch, capsys):
    Path("mine.pth").write_bytes(b"PK" * 50)
    said = refused(monkeypatch, capsys, **SAM, sam_checkpoint="mine.pth")
    assert "expected a file of plain tensors, can't read mine.pth" in said


def test_a_sam_file_for_another_backbone(work, monkeypatch, capsys):
    with open("sam.pth", "wb") as file:
        file.truncate(BACKBONES["vit_l"].weights.size)  # takes no room on the disk
    said = refused(monkeypatch, capsys, **SAM, sam_checkpoint="sam.pth")
    assert "sam.pth is the file of vit_l; expected the weights of vit_b" in said


def change_split(change) -> None:
    path = Path("results/split/split.parquet")
    old = read_split(path)
    write_split(path, SplitFile(old.name, change(dict(old.roles))))


def test_a_split_of_other_slices(work, monkeypatch, capsys):
    change_split(lambda roles: dict(list(roles.items())[1:]))
    said = refused(monkeypatch, capsys)
    assert "results/split: the split " in said and "run the split stage again" in said


def test_a_shard_that_is_not_the_manifests(work, monkeypatch, capsys):
    roles = read_split(Path("results/split/split.parquet"))
    shards = [Path("results/prepare/shards", f"{case}.parquet") for case in roles.cases["train"]]
    shutil.copyfile(shards[1], shards[0])
    said = refused(monkeypatch, capsys)
    assert f"{shards[0]}: this isn't the shard that the manifest names" in said


def test_no_training_slices(work, monkeypatch, capsys):
    change_split(lambda roles: {key: "unused" for key in roles})
    said = refused(monkeypatch, capsys)
    assert "the split has no training slices; raise split.subjects or split.slices" in said


def test_more_gpus_than_there_are(work, monkeypatch, capsys):
    tools = work / "bin"
    write_text(tools / "nvidia-smi", "#!/bin/sh\necho 0\n")
    (tools / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    said = refused(monkeypatch, capsys, "--gpus", "2", devices=2)
    assert "2 GPUs are needed, 1 can be seen (0)" in said


def test_a_run_folder_of_another_run(work, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["hsam", "train", "--gpus", "0"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    (folder,) = Path("runs").glob("*-train-*")
    key = json.loads((folder / "key.json").read_text())
    key["params"]["train"]["epochs"] = 7
    (folder / "key.json").write_text(json.dumps(key))
    shutil.rmtree("results/train")
    write_text(Path("results/train/model.json"), "earlier")
    capsys.readouterr()
    said = refused(monkeypatch, capsys)
    assert f"{folder}: belongs to another run, with other train.epochs; move it away" in said


def test_a_pass_that_does_not_fit(work, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.training.preflight.free_bytes", lambda device: 2**20)
    said = refused(monkeypatch, capsys, micro_batch=4)
    assert "train.micro_batch: 4 slices of 32 px in one pass of hsam need " in said
    assert "GiB, 0.00 GiB are free on cpu; set it to auto or lower" in said

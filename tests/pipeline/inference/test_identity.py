import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import hsam
from hsam.backbones import BACKBONES
from pipeline.core import files
from pipeline.inference.identity import identify, sentence


@pytest.fixture
def results(tmp_path) -> Path:
    """results/ with a model and its evaluation."""
    torch.manual_seed(0)
    model = hsam.build("samed", "vit_tiny", image_size=32, num_classes=2)
    hsam.save(model, tmp_path / "train", class_names=["a", "b"], data_set="phantom")
    evaluation(tmp_path / "evaluate", tmp_path / "train", 0.8125)
    return tmp_path


def evaluation(folder: Path, model: Path, dice: float | None) -> None:
    """What the evaluate stage writes about a model and its score."""
    folder.mkdir(parents=True)
    names = ("model.json", "model.safetensors")
    inputs = {name: files.sha256(model / name) for name in names}
    metrics = {"mean_dice": dice, "cases": 6, "stage": "mean", "convention": "strict"}
    (folder / "provenance.json").write_text(json.dumps({"stage": "evaluate", "inputs": inputs}))
    (folder / "metrics.json").write_text(json.dumps(metrics))


def said(folder: Path) -> str:
    return sentence(identify(folder, hsam.read_record(folder)))


def test_model_data_date_and_test_dice_are_named(results):
    found = said(results / "train")
    assert found.startswith("model samed vit_tiny at 32 px, trained on phantom, written 20")
    assert "test Dice 0.8125 (mean, 6 cases, strict)" in found
    assert files.sha256(results / "train" / "model.safetensors")[:12] in found


def test_the_evaluation_of_another_model_says_nothing(results):
    path = results / "train" / "model.json"
    path.write_text(path.read_text().replace("phantom", "synapse"))
    found = said(results / "train")
    assert "trained on synapse" in found and "no evaluation of it found" in found
    assert identify(results / "train", hsam.read_record(results / "train"))["test"] is None


def test_a_run_folder_finds_its_evaluation_among_the_others(results):
    runs = results / "runs"
    shutil.copytree(results / "train", runs / "phantom-train-1" / "out")
    evaluation(runs / "phantom-evaluate-1" / "out", results / "train", 0.5)
    (runs / "phantom-evaluate-2" / "out").mkdir(parents=True)
    (runs / "phantom-evaluate-2" / "out" / "metrics.json").write_text("{")
    assert "test Dice 0.5000" in said(runs / "phantom-train-1" / "out")


@pytest.mark.parametrize("text", ["", "[]", "{}", "null"])
def test_a_damaged_evaluation_says_nothing(results, text):
    (results / "evaluate" / "metrics.json").write_text(text)
    assert "no evaluation of it found" in said(results / "train")


def test_a_model_of_an_earlier_version_has_no_data_set(results):
    path = results / "train" / "model.json"
    record = json.loads(path.read_text())
    del record["data_set"], record["resizing"], record["preparation"]
    path.write_text(json.dumps(record))
    assert "trained on data that its record doesn't name" in said(results / "train")


def test_an_undefined_score_and_an_import_are_said(results):
    shutil.rmtree(results / "evaluate")
    evaluation(results / "evaluate", results / "train", None)
    (results / "train" / "provenance.json").write_text('{"stage": "import-checkpoint"}')
    found = said(results / "train")
    assert "imported, of phantom" in found and "test Dice undefined" in found


@pytest.mark.parametrize(
    ("sha256", "trained_on"),
    [
        (BACKBONES["vit_b"].weights.sha256, "SA-1B: 11 million photographs"),
        (BACKBONES["litemedsam"].weights.sha256, BACKBONES["litemedsam"].weights.trained_on),
        ("ab" * 32, "images that aren't known here (weights abababababab)"),
    ],
)
def test_the_images_of_the_pretraining_are_named(results, sha256, trained_on):
    """Also of a run that an earlier version wrote: its record has the SHA-256 alone."""
    record = hsam.read_record(results / "train") | {"sam_sha256": sha256}
    found = identify(results / "train", record)
    assert found["pretraining"] == {"trained_on": trained_on, "may_include_test": False}
    assert f"trained on phantom, encoder pretrained on {trained_on}, written" in sentence(found)
    assert "may be among" not in sentence(found)


def test_test_images_that_the_encoder_may_have_seen_are_said_beside_the_score(results):
    seen = {"sam_sha256": BACKBONES["litemedsam"].weights.sha256, "data_set": "synapse"}
    found = identify(results / "train", hsam.read_record(results / "train") | seen)
    assert found["pretraining"]["may_include_test"]
    dice = "test Dice 0.8125 (mean, 6 cases, strict)"
    assert f"{dice}, of images that may be among those of the pretraining" in sentence(found)


def test_the_record_of_a_model_says_what_its_encoder_saw(results, monkeypatch):
    assert hsam.read_record(results / "train")["pretraining"] is None
    assert "pretrained" not in said(results / "train")
    model = hsam.build("samed", "vit_tiny", image_size=32, num_classes=2)
    model.sam_sha256 = "ab" * 32
    hsam.save(model, results / "other", class_names=["a", "b"])
    assert hsam.read_record(results / "other")["pretraining"]["may_have_seen"] == []
    known = replace(BACKBONES["vit_b"].weights, sha256="ab" * 32, may_have_seen=("la",))
    monkeypatch.setitem(BACKBONES, "toy", replace(BACKBONES["vit_b"], weights=known))
    hsam.save(model, results / "other", class_names=["a", "b"])
    before = hsam.read_record(results / "other")["pretraining"]
    assert before == {"trained_on": known.trained_on, "may_have_seen": ["la"]}

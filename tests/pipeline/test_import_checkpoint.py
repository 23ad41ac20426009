"""Checkpoints of the published H-SAM code, made for a toy backbone."""

import json

import pytest
import torch

import hsam
from hsam.backbones import BACKBONES, Backbone
from pipeline import import_checkpoint, trained
from pipeline.datasets import synapse
from pipeline.errors import UserError
from pipeline.params import load, overlay, read_yaml, validate
from pipeline.predict_scans import Predictor
from tests.hsam.seeded import seeded_image
from tests.hsam.test_published_adapter import published_state
from tests.hsam.toys import randomise, sam_state
from tests.pipeline.conftest import ROOT


@pytest.fixture(autouse=True)
def small_vit_b(monkeypatch):
    """A backbone of two blocks under the name of the preset's."""
    toy = Backbone(48, 2, 2, (1,), True, 32, 2, window=3)
    monkeypatch.setitem(BACKBONES, "vit_b", toy)
    monkeypatch.setitem(BACKBONES, "toy", toy)


def params(**train):
    """The preset at 64 px."""
    merged = overlay(
        read_yaml(ROOT / "params.yaml"),
        read_yaml(import_checkpoint.preset_file("synapse-10pct")),
        {"train": {"image_size": 64} | train},
    )
    return validate(merged, "test")


@pytest.fixture
def published(tmp_path):
    """The model, and its SAM and adapter files."""
    sam, adapter = tmp_path / "sam.pth", tmp_path / "220_epoch_299.pth"
    torch.save(sam_state(), sam)
    source = hsam.build_hsam(
        "vit_b", image_size=64, num_classes=8, gate="constant", sam_checkpoint=sam
    )
    frozen = {name: p.clone() for name, p in source.image_encoder.named_parameters()}
    randomise(source)
    with torch.no_grad():
        for name, p in source.image_encoder.named_parameters():
            if not p.requires_grad:
                p.copy_(frozen[name])
    torch.save(published_state(source), adapter)
    return source.eval(), sam, adapter


def test_the_run_folder_gives_the_published_models_answers(published, tmp_path):
    source, sam, adapter = published
    out = tmp_path / "runs" / "published"
    import_checkpoint.run(adapter, sam, params(), out)
    folder = trained.model_folder(out)
    assert folder == out / "out"
    model = hsam.load(folder, sam_checkpoint=trained.sam_checkpoint(folder, None))
    image = seeded_image(1, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(image).logits(), source(image).logits())
    assert not list((tmp_path / "runs").glob(".*"))


def test_a_prediction_needs_nothing_but_the_folder(published, tmp_path):
    _, sam, adapter = published
    import_checkpoint.run(adapter, sam, params(), tmp_path / "out")
    predictor = Predictor.load(tmp_path / "out", None, "cpu")
    assert predictor.names == list(synapse.ORGANS)
    assert (predictor.rule.low, predictor.rule.high) == (-125, 275)
    assert predictor.stages == ("mean", "coarse", "fine")


def test_provenance_names_both_files(published, tmp_path):
    _, sam, adapter = published
    import_checkpoint.run(adapter, sam, params(), tmp_path / "out")
    found = json.loads((tmp_path / "out" / "out" / "provenance.json").read_text())
    assert set(found["inputs"]) == {"adapter", "sam_checkpoint"}
    assert found["params"]["train"]["sam_checkpoint"] == str(sam)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 80}, "image size 80.*this one is for.*image size 64.*choose the --preset"),
        ({"lora_rank": 2}, "LoRA rank 2.*this one is for.*LoRA rank 4"),
    ],
)
def test_an_adapter_for_another_preset_is_refused(published, tmp_path, change, message):
    _, sam, adapter = published
    with pytest.raises(UserError, match=message):
        import_checkpoint.run(adapter, sam, params(**change), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_are_not_there_or_not_what_they_should_be(published, tmp_path):
    _, sam, adapter = published
    with pytest.raises(UserError, match="--adapter: there is no file"):
        import_checkpoint.run(tmp_path / "none", sam, params(), tmp_path / "out")
    with pytest.raises(UserError, match="there is no file"):
        import_checkpoint.run(adapter, tmp_path / "none", params(), tmp_path / "out")
    with pytest.raises(UserError, match="expected an adapter file of the published H-SAM code"):
        import_checkpoint.run(sam, sam, params(), tmp_path / "out")
    with pytest.raises(UserError, match="is already there|is there already"):
        import_checkpoint.run(adapter, sam, params(), tmp_path)


def test_presets_are_listed():
    assert load([ROOT / "params.yaml", import_checkpoint.preset_file("synapse-10pct")])
    with pytest.raises(UserError, match="expected one of la-4, phantom"):
        import_checkpoint.preset_file("synapse")

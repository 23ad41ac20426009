"""Checkpoints of the published H-SAM code, made for a toy backbone."""

import json

import pandas as pd
import pytest
import torch

import hsam
from hsam.backbones import BACKBONES, Backbone
from pipeline.cli import main
from pipeline.commands import import_checkpoint
from pipeline.commands.predict import Predictor
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.core.params.load import Layer, layers, load, resolve
from pipeline.datasets import synapse
from pipeline.inference import trained
from pipeline.inference.volume import predict_volume
from pipeline.shards.case import ShardReader
from pipeline.stages import evaluate, report, split
from tests.hsam.seeded import seeded_image
from tests.hsam.toys import randomise, sam_state
from tests.hsam.weights.test_published_adapter import published_state


@pytest.fixture(autouse=True)
def small_vit_b(monkeypatch):
    """A backbone of two blocks under the name of the preset's."""
    toy = Backbone(48, 2, 2, (1,), True, 32, 2, window=3)
    monkeypatch.setitem(BACKBONES, "vit_b", toy)
    monkeypatch.setitem(BACKBONES, "toy", toy)


def params(**train):
    """The preset at 64 px."""
    changes = Layer("test", {"train": {"image_size": 64} | train})
    return resolve([*layers(import_checkpoint.preset_file("synapse-10pct")), changes])


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
    model = trained.load_model(folder, None, "cpu")
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


def test_parameter_files_are_laid_over_the_preset(published, tmp_path, monkeypatch):
    _, sam, adapter = published
    (tmp_path / "mine.yaml").write_text("train: {image_size: 64}")
    arguments = ("--adapter", adapter, "--sam", sam, "--preset", "synapse-10pct")
    rest = ("--params", tmp_path / "mine.yaml", "--out", tmp_path / "out")
    command = ["hsam", "import-checkpoint", *map(str, (*arguments, *rest))]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    found = files.read_json(tmp_path / "out" / "out" / "model.json")
    assert found["config"]["image_size"] == 64


def test_presets_are_listed():
    assert load([import_checkpoint.preset_file("synapse-10pct")])
    with pytest.raises(UserError, match="expected one of la-4, paper, phantom"):
        import_checkpoint.preset_file("synapse")


@pytest.fixture
def evaluated(published, phantom_params, prepared_phantoms, tmp_path):
    """results/ with an imported run scored on the phantoms; and the run."""
    _, sam, adapter = published
    run, results = tmp_path / "published", tmp_path / "results"
    import_checkpoint.run(adapter, sam, params(), run)
    results.mkdir()
    (results / "prepare").symlink_to(prepared_phantoms)
    split.run(phantom_params, prepared_phantoms, results / "split", tmp_path / "runs")
    # as a preset has it: SAM's file at a place where this user doesn't keep it
    settings = phantom_params.train.model_copy(update={"sam_checkpoint": "checkpoints/none.pth"})
    changed = phantom_params.model_copy(update={"train": settings})
    folders = (results / "prepare", results / "split", run, results / "evaluate")
    evaluate.run(changed, *folders, tmp_path / "runs", device="cpu")
    return results, run


def test_an_imported_run_is_evaluated_as_its_model_predicts(evaluated, published):
    source, _, _ = published
    results, _ = evaluated
    scores = files.read_json(results / "evaluate" / "metrics.json")
    assert scores["cases"] == 2 and list(scores["stages"]) == ["mean", "coarse", "fine"]
    images, truth = ShardReader(results / "prepare" / "shards" / "img0004.parquet").read_volume()
    liver = predict_volume(source, images) == 5
    shared = (liver & (truth == 5)).sum()
    table = pd.read_csv(results / "evaluate" / "cases.csv").set_index(["case", "organ"])
    found = table.loc["img0004", "liver"]
    assert found["predicted_voxels"] == liver.sum() > 0
    dice = 2 * shared / (liver.sum() + (truth == 5).sum())
    assert found["dice"] == pytest.approx(dice)


def test_the_report_of_an_imported_run_claims_no_training(evaluated, phantom_params, tmp_path):
    results, run = evaluated
    stages = (results / "prepare", results / "split", trained.model_folder(run))
    report.run(
        phantom_params,
        *stages,
        results / "search",
        results / "evaluate",
        tmp_path / "reports",
        tmp_path / "runs",
    )
    html = (tmp_path / "reports" / "report.html").read_text()
    assert "A published checkpoint, scored on 2 cases" in html
    assert "nothing is recorded of the training" in html
    assert "No search was run (the model was imported)." in html
    assert "Trained on" not in html and "0 epochs" not in html and str(tmp_path) not in html


def test_sams_file_is_asked_for_where_none_can_be_found(published, tmp_path):
    _, sam, adapter = published
    import_checkpoint.run(adapter, sam, params(), tmp_path / "out")
    folder = trained.model_folder(tmp_path / "out")
    sam.rename(tmp_path / "moved.pth")
    with pytest.raises(UserError, match=r"there is no file .*sam\.pth; name it with --checkpoint"):
        trained.load_model(folder, None, "cpu")
    trained.load_model(folder, tmp_path / "moved.pth", "cpu")
    with pytest.raises(UserError, match="expected SHA-256 .*, got .*--checkpoint naming the SAM"):
        trained.load_model(folder, adapter, "cpu")

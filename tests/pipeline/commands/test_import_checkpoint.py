"""Checkpoints of the published H-SAM code, made for a toy backbone."""

import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from nibabel import orientations
from scipy import ndimage
from torch import nn

import hsam
from hsam.backbones import BACKBONES, WeightFile
from pipeline.cli import main
from pipeline.commands import import_checkpoint
from pipeline.commands import predict as predict_command
from pipeline.commands.predict import Wanted
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.core.params.load import Layer, layers, load, resolve
from pipeline.datasets import synapse
from pipeline.imaging import volumes
from pipeline.inference import records, trained
from pipeline.inference.predictor import Predictor
from pipeline.reporting.inputs import ReportFolders
from pipeline.shards.case import ShardReader
from pipeline.stages import evaluate, report, split
from tests.hsam.seeded import seeded_image
from tests.hsam.toys import TOY, randomise, sam_state
from tests.hsam.weights.test_published_adapter import published_state
from tests.pipeline.conftest import AFFINE, save_nifti


@pytest.fixture(autouse=True)
def small_vit_b(monkeypatch):
    """A backbone of two blocks under the name of the preset's."""
    monkeypatch.setitem(BACKBONES, "vit_b", TOY)
    monkeypatch.setitem(BACKBONES, "toy", TOY)


def params(preset="synapse-10pct", blocks=None, **train):
    """The preset at 64 px."""
    changes = Layer("test", {"train": {"image_size": 64} | train} | (blocks or {}))
    return resolve([*layers(import_checkpoint.preset_file(preset)), changes])


@pytest.fixture
def published(tmp_path):
    """The model, and its SAM and adapter files."""
    return make_published(tmp_path, 8)


def make_published(folder, organs):
    """A model of the published code with so many organs, and its SAM and adapter files."""
    sam, adapter = folder / "sam.pth", folder / "220_epoch_299.pth"
    torch.save(sam_state(), sam)
    source = hsam.build_hsam(
        "vit_b", image_size=64, num_classes=organs, gate="constant", sam_checkpoint=sam
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
    folder = records.model_folder(out)
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


def by_hand(model, slices):
    """Labels of slices (Z, H, W) in [0, 1] by the published code's order of operations."""
    labels = np.zeros(slices.shape, np.uint8)
    for index, image in enumerate(slices):
        height, width = image.shape
        small = ndimage.zoom(image, (64 / height, 64 / width), order=3)
        with torch.no_grad():
            output = model(torch.from_numpy(small)[None, None].float().repeat(1, 3, 1, 1))
        coarse = nn.functional.interpolate(
            output.coarse_logits, (64, 64), mode="bilinear", align_corners=False
        )
        answer = ((coarse + output.fine_logits) / 2).softmax(1).argmax(1)[0].numpy()
        labels[index] = ndimage.zoom(answer, (height / 64, width / 64), order=0)
    return labels


def anatomy(shape):
    """(x, y, z) int16 HU, smooth and without any symmetry."""
    noise = ndimage.gaussian_filter(np.random.default_rng(5).standard_normal(shape), (3, 3, 1))
    return (75 + 400 * noise / np.abs(noise).max()).astype(np.int16)


def predicted(run, scan, out, **wanted):
    """The label map of a scan (x, y, z), as its file has it."""
    assert predict_command.run([scan], run, out, Wanted(batch=2, **wanted), None, "cpu")
    name = scan.name.removesuffix(scan.suffix).removesuffix(".nii")
    (path,) = [p for p in out.glob(f"{name}.*") if p.suffix in (".gz", ".mha")]
    return volumes.read(path).array


def stored_as(array, affine, codes):
    """A volume and its affine, stored along other whole axes."""
    turn = orientations.ornt_transform(
        orientations.io_orientation(affine), orientations.axcodes2ornt(codes)
    )
    turned = orientations.apply_orientation(array, turn)
    return turned, affine @ orientations.inv_ornt_aff(turn, array.shape)


@pytest.mark.parametrize("codes", ["LAS", "RAS", "LPS", "PIR", "SAL"])
def test_synapses_slices_are_those_of_the_published_preparation(published, tmp_path, codes):
    source, sam, adapter = published
    import_checkpoint.run(adapter, sam, params(), tmp_path / "run")
    array = anatomy((40, 52, 3))
    # the published code: clip, scale, (x, y, z) -> (z, y, x) of files stored as LAS
    unit = (np.clip(array.astype(np.float32), -125, 275) + 125) / 400
    wanted = by_hand(source, unit.transpose(2, 1, 0)).transpose(2, 1, 0)
    assert len(np.unique(wanted)) > 2
    turned, affine = stored_as(array, AFFINE, codes)
    save_nifti(tmp_path / "scan.nii.gz", turned, affine)
    found = predicted(tmp_path / "run", tmp_path / "scan.nii.gz", tmp_path / "out")
    assert np.array_equal(found, stored_as(wanted, AFFINE, codes)[0])
    # that the axes and the resizing matter at all
    for changed in ({"axes": "SPL"}, {"resizing": "linear"}):
        other = with_record(tmp_path / "run", tmp_path / next(iter(changed)), changed)
        found = predicted(other, tmp_path / "scan.nii.gz", other / "out")
        assert not np.array_equal(found, stored_as(wanted, AFFINE, codes)[0])


def with_record(run, folder, changed):
    """A copy of a run whose model.json says something else."""
    shutil.copytree(run / "out", folder)
    record = files.read_json(folder / "model.json")
    axes = changed.get("axes", record["preparation"]["axes"])
    record["preparation"]["axes"] = axes
    record["resizing"] = changed.get("resizing", record["resizing"])
    (folder / "model.json").write_text(json.dumps(record))
    return folder


def test_las_rows_are_the_first_axis_of_the_array(tmp_path):
    source, sam, adapter = make_published(tmp_path, 1)
    import_checkpoint.run(adapter, sam, params("la-4"), tmp_path / "run")
    array = anatomy((40, 52, 3)).astype(np.float32)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["image"] = array
    found = predicted(tmp_path / "run", tmp_path / "scan.h5", tmp_path / "out")
    assert np.array_equal(found, scaled_by_hand(source, array, tmp_path, (2, 0, 1)))


def test_promises_slices_are_as_simpleitk_gives_them(tmp_path):
    source, sam, adapter = make_published(tmp_path, 1)
    import_checkpoint.run(adapter, sam, params("promise12-3"), tmp_path / "run")
    array = anatomy((40, 52, 3))
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose()))
    image.SetSpacing((0.6, 0.6, 3.6))
    sitk.WriteImage(image, str(tmp_path / "scan.mha"))
    found = predicted(tmp_path / "run", tmp_path / "scan.mha", tmp_path / "out")
    assert np.array_equal(found, scaled_by_hand(source, array, tmp_path, (2, 1, 0)))


def scaled_by_hand(source, array, folder, order):
    """Labels (x, y, z) of slices in an order of axes, scaled to the bounds in the record."""
    record = files.read_json(folder / "out" / "scan.json")
    low, high = record["low"], record["high"]
    unit = (np.clip(array.astype(np.float32), low, high) - low) / np.float32(high - low)
    labels = by_hand(source, unit.transpose(order)).transpose(np.argsort(order))
    assert len(np.unique(labels)) == 2
    return labels


@pytest.mark.parametrize(
    ("given", "axes", "wanted"),
    [
        ({}, None, "SAL"),
        ({"prepare": {"axes": "IPR"}}, None, "IPR"),
        ({"prepare": {"axes": "IPR"}}, "SLA", "SLA"),
    ],
)
def test_the_axes_can_be_named(published, tmp_path, given, axes, wanted):
    _, sam, adapter = published
    import_checkpoint.run(adapter, sam, params(blocks=given), tmp_path / "run", axes)
    assert Predictor.load(tmp_path / "run", None, "cpu").axes == wanted


def test_axes_that_are_none_are_refused(published, tmp_path):
    _, sam, adapter = published
    with pytest.raises(UserError, match="--axes: expected three letters.*found SPX"):
        import_checkpoint.run(adapter, sam, params(), tmp_path / "run", "SPX")
    assert not (tmp_path / "run").exists()


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


def test_adapters_of_training_programs_are_read_and_nan_is_refused(published, tmp_path):
    _, sam, adapter = published
    state = torch.load(adapter)
    torch.save({"model": {"module." + key: value for key, value in state.items()}}, adapter)
    import_checkpoint.run(adapter, sam, params(), tmp_path / "out")
    state["w_a_000"][0, 0] = float("nan")
    torch.save(state, adapter)
    with pytest.raises(UserError, match="--adapter: .* found NaN or infinity in w_a_000"):
        import_checkpoint.run(adapter, sam, params(), tmp_path / "other")
    adapter.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="--adapter: .* is a pointer of Git LFS"):
        import_checkpoint.run(adapter, sam, params(), tmp_path / "other")


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
    with pytest.raises(UserError, match="expected one of .*la-4, .*paper, phantom"):
        import_checkpoint.preset_file("synapse")


@pytest.fixture
def evaluated(published, phantom_params, prepared_phantoms, tmp_path, monkeypatch):
    """results/ with an imported run scored on phantoms that SAM's file may have seen; the run."""
    _, sam, adapter = published
    known = WeightFile("t", "", sam.stat().st_size, files.sha256(sam), "", "toys", ("phantom",))
    monkeypatch.setitem(BACKBONES, "vit_b", replace(TOY, weights=known))
    run, results = tmp_path / "published", tmp_path / "results"
    import_checkpoint.run(adapter, sam, params(), run, "SPL")
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
    assert scores["pretraining"] == {"trained_on": "toys", "may_include_test": True}
    images, truth = ShardReader(results / "prepare" / "shards" / "img0004.parquet").read_volume()
    liver = by_hand(source, images) == 5
    shared = (liver & (truth == 5)).sum()
    table = pd.read_csv(results / "evaluate" / "cases.csv").set_index(["case", "organ"])
    found = table.loc["img0004", "liver"]
    assert found["predicted_voxels"] == liver.sum() > 0
    dice = 2 * shared / (liver.sum() + (truth == 5).sum())
    assert found["dice"] == pytest.approx(dice)


def test_the_report_of_an_imported_run_claims_no_training(evaluated, phantom_params, tmp_path):
    results, run = evaluated
    names = ("prepare", "split", "search", "evaluate")
    folders = {name: results / name for name in names} | {"train": records.model_folder(run)}
    where = tmp_path / "reports", tmp_path / "runs"
    report.run(phantom_params, ReportFolders(**folders), *where, other_run=True)
    html = (tmp_path / "reports" / "report.html").read_text()
    assert "A published checkpoint, scored on 2 cases" in html
    assert "nothing is recorded of the training" in html
    assert "<p>Its encoder was pretrained on toys.</p>" in html
    caution = "weights were trained on toys; test images of this data set may be among these"
    assert f'<p class="remark caution">The encoder&#39;s {caution}' in html
    assert "No search was run (the model was imported)." in html
    assert "Trained on" not in html and "0 epochs" not in html and str(tmp_path) not in html


def test_sams_file_is_asked_for_where_none_can_be_found(published, tmp_path):
    _, sam, adapter = published
    import_checkpoint.run(adapter, sam, params(), tmp_path / "out")
    folder = records.model_folder(tmp_path / "out")
    sam.rename(tmp_path / "moved.pth")
    with pytest.raises(UserError, match=r"there is no file .*sam\.pth; name it with --checkpoint"):
        trained.load_model(folder, None, "cpu")
    trained.load_model(folder, tmp_path / "moved.pth", "cpu")
    with pytest.raises(UserError, match="expected SHA-256 .*, got .*--checkpoint naming the file"):
        trained.load_model(folder, adapter, "cpu")


def test_the_published_sam_file_is_found_by_name_for_importing_and_predicting(
    published, tmp_path, monkeypatch
):
    """Its folder stays out of what is written, and another one serves later."""
    _, sam, adapter = published
    known = WeightFile("toy.pth", "https://h/t", sam.stat().st_size, files.sha256(sam), "", "")
    monkeypatch.setitem(BACKBONES, "vit_b", replace(TOY, weights=known))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="auto finds no toy.pth, .*`hsam weights get vit_b`"):
        import_checkpoint.run(adapter, None, params(), tmp_path / "out")
    for folder in ("shared-weights", "checkpoints"):
        (tmp_path / folder).mkdir()
    monkeypatch.setenv("HSAM_WEIGHTS", str(tmp_path / "shared-weights"))
    shutil.copyfile(sam, tmp_path / "shared-weights" / "toy.pth")
    import_checkpoint.run(adapter, None, params(), tmp_path / "out")
    folder = records.model_folder(tmp_path / "out")
    assert records.recorded_checkpoint(folder) == "auto"
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"shared-weights" not in path.read_bytes()
    trained.load_model(folder, None, "cpu")
    shutil.move(tmp_path / "shared-weights" / "toy.pth", tmp_path / "checkpoints" / "toy.pth")
    trained.load_model(folder, None, "cpu")
    (tmp_path / "checkpoints" / "toy.pth").unlink()
    with pytest.raises(UserError, match="`hsam weights get vit_b` downloads it, or name it with"):
        trained.load_model(folder, None, "cpu")


def test_a_run_whose_sam_file_went_away_takes_the_published_one(published, tmp_path, monkeypatch):
    _, sam, adapter = published
    known = WeightFile("toy.pth", "https://h/t", sam.stat().st_size, files.sha256(sam), "", "")
    monkeypatch.setitem(BACKBONES, "vit_b", replace(TOY, weights=known))
    import_checkpoint.run(adapter, sam, params(), tmp_path / "out")
    folder = records.model_folder(tmp_path / "out")
    (tmp_path / "checkpoints").mkdir()
    sam.rename(tmp_path / "checkpoints" / "toy.pth")
    monkeypatch.chdir(tmp_path)
    trained.load_model(folder, None, "cpu")

"""Scans of several channels, from `hsam init` to prediction, as a user goes."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from pipeline import datasets
from pipeline.commands import export, export_nnunet, init
from pipeline.commands import predict as predict_command
from pipeline.commands.predict import Wanted
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Params
from pipeline.core.params.load import load
from pipeline.datasets import check
from pipeline.datasets.recognise import recognise
from pipeline.planning.survey import survey
from pipeline.shards.case import ShardReader
from pipeline.shards.manifest import read_manifest
from pipeline.stages import prepare
from tests.pipeline.channel_folders import (
    affine,
    channels,
    dice,
    write_decathlon,
    write_pairs,
    write_raw,
)
from tests.pipeline.conftest import make_params, save_nifti
from tests.pipeline.dicom_files import write_series
from tests.pipeline.test_cli import hsam

TINY = {
    "image_size": 48,
    "epochs": 10,
    "batch_size": 4,
    "micro_batch": 4,
    "learning_rate": 0.003,
    "warmup_iterations": 4,
    "model_options": {"features": [8, 8, 16, 16, 16, 8]},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder in which `hsam init` and `hsam run` have gone over a data set of T2 and ADC."""
    folder = tmp_path_factory.mktemp("channels")
    write_raw(folder / "raw")
    made = hsam("init", "raw", "--out", "mine.yaml", "--gpus", "0", "--jobs", "1", cwd=folder)
    assert made.returncode == 0, made.stderr
    assert "MR or the like, axial slices, channels T2, ADC" in made.stdout
    values = yaml.safe_load((folder / "mine.yaml").read_text())
    assert values["dataset"]["channels"] == ["T2", "ADC"]
    values["train"] |= TINY
    values["train"].pop("cache_embeddings", None)
    (folder / "mine.yaml").write_text(json.dumps(values))
    ran = hsam("run", "mine.yaml", "--gpus", "0", "--jobs", "1", cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return folder


def predict(project: Path, *scans: Path, out: Path, **wanted) -> dict[str, dict]:
    """Records of predicted scans, by their names."""
    given = Wanted(**{"stage": "fine"} | wanted)
    predict_command.run(scans, project / "results" / "train", out, given, None, "cpu")
    return {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")}


def test_both_channels_are_learned_from(project):
    metrics = json.loads((project / "results" / "evaluate" / "metrics.json").read_text())
    # a box that one channel alone takes for the organ would leave at most 2/3
    assert metrics["mean_dice"] > 0.85
    record = json.loads((project / "results" / "train" / "model.json").read_text())
    assert [rule["kind"] for rule in record["intensity"]] == ["percentile", "percentile"]
    named = [{"name": "T2", "number": 0}, {"name": "ADC", "number": 1}]
    assert record["preparation"]["channels"] == named
    assert len(record["usual"]["other_means"]) == 1
    page = re.sub("</?span[^>]*>", "", (project / "reports" / "report.html").read_text())
    assert "hsam predict T2.nii.gz ADC.nii.gz --case scan --run results/train" in page
    assert "The pictures show T2, the first of the channels T2, ADC." in page


def test_shards_hold_each_channel_in_place(project):
    shards = project / "results" / "prepare" / "shards"
    manifest = read_manifest(shards.parent / "manifest.parquet")
    for number, row in enumerate(manifest):
        reader = ShardReader(shards / row.shard)
        images, labels = reader.read_volume()
        (x, y, z), organ = (40, 36, 9), channels(number)[1]
        assert images.shape == (z, 2, y, x) and labels.shape == (z, y, x)
        assert labels.sum() == organ.sum()
        # on the organ T2 is bright and ADC is dark, whatever the source's axes
        assert images[:, 0][labels == 1].mean() > 0.7 > 0.5 > images[:, 1][labels == 1].mean()
        low, high = reader.bounds
        t2, adc = channels(number)[0]
        assert low == pytest.approx([np.percentile(t2, 0.5), np.percentile(adc, 0.5)])
        assert (row.low, row.high) == (low[0], high[0])


def test_files_of_a_case_are_found_by_number_or_named(project, tmp_path):
    test = sorted((project / "results" / "evaluate" / "predictions").iterdir())[0]
    case = test.name.removesuffix(".nii.gz")
    images = project / "raw" / "imagesTr"
    for place in range(2):
        (tmp_path / "in").mkdir(exist_ok=True)
        shutil.copy(images / f"{case}_{place:04}.nii.gz", tmp_path / "in")
    found = predict(project, tmp_path / "in", out=tmp_path / "a", overlay=True)
    assert list(found) == [case]
    assert found[case]["channels"] == ["T2", "ADC"]
    assert len(found[case]["low"]) == 2
    assert not [warning for warning in found[case]["warnings"] if "channel" in warning]
    # what the evaluation gave it, on the grid of the scan
    assert dice(test, tmp_path / "a" / f"{case}.nii.gz") == 1
    like = nib.load(images / f"{case}_0000.nii.gz")
    assert np.allclose(nib.load(tmp_path / "a" / f"{case}.nii.gz").affine, like.affine)
    files = [images / f"{case}_{place:04}.nii.gz" for place in range(2)]
    named = predict(project, *files, out=tmp_path / "b", case="anyone", tta=True)
    assert list(named) == ["anyone"]
    assert dice(test, tmp_path / "b" / "anyone.nii.gz") > 0.8
    both = np.stack([np.asarray(nib.load(path).dataobj) for path in files], axis=-1)
    whole = save_nifti(tmp_path / "whole.nii.gz", both, like.affine)
    predict(project, whole, out=tmp_path / "c")
    assert dice(test, tmp_path / "c" / "whole.nii.gz") == 1


def test_channels_in_the_wrong_order_are_told_of(project, tmp_path, capsys):
    files = [project / "raw" / "imagesTr" / f"c0_{place:04}.nii.gz" for place in (1, 0)]
    record = predict(project, *files, out=tmp_path, case="swapped")["swapped"]
    assert any("or other channels in its place?" in warning for warning in record["warnings"])


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [
        (["c0_0000"], {}, r"c0: expected the channels T2 and ADC.*found no c0_0001; add them"),
        (["c0_0000"], {"case": "x"}, "expected 2 scans, the channels T2 and ADC in this order"),
        (["t2"], {}, r"t2.nii.gz: expected 4-D NIfTI with 2 or more channels.*found 40 x 36 x 9"),
        (["c0_0000", "c1_0001"], {"case": "x"}, "expected the grid of .*c0_0000.nii.gz"),
    ],
)
def test_what_prediction_refuses(project, tmp_path, names, wanted, message):
    folder = tmp_path / "in"
    shutil.copytree(project / "raw" / "imagesTr", folder)
    shutil.copy(folder / "c0_0000.nii.gz", folder / "t2.nii.gz")
    with pytest.raises(UserError, match=message):
        predict(project, *(folder / f"{name}.nii.gz" for name in names), out=tmp_path, **wanted)
    assert not list(tmp_path.glob("*.nii.gz"))


def test_series_of_a_study_are_channels_of_a_case(project, tmp_path):
    (t2, adc), _ = channels(0)
    for name, image in (("t2", t2), ("adc", adc)):
        slices = np.ascontiguousarray(image.T).round().astype(np.int16)
        write_series(tmp_path / name, slices, Modality="MR")
    folders = tmp_path / "t2", tmp_path / "adc"
    wanted = {"case": "study", "dicom_seg": True}
    record = predict(project, *folders, out=tmp_path / "out", **wanted)["study"]
    assert record["voxels"]["lesion"] > 500
    assert (tmp_path / "out" / "study.seg.dcm").is_file()


def test_an_exported_model_has_an_input_of_two_channels(project, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    export.run(project / "results" / "train", tmp_path, "onnx", "fine", 1, None)
    record = json.loads((tmp_path / "model.onnx.json").read_text())
    assert record["input"]["shape"] == [1, 2, 48, 48]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert session.get_inputs()[0].shape == [1, 2, 48, 48]


def test_a_bundle_reads_one_channel_alone(project, tmp_path):
    train = project / "results" / "train"
    with pytest.raises(UserError, match="reads scans of one channel, the model has T2 and ADC"):
        export.run(train, tmp_path / "bundle", "monai-bundle", "fine", 1, None)
    assert not (tmp_path / "bundle").exists()


def test_a_published_folder_says_how_to_give_both_channels(project, tmp_path):
    export.run(project / "results" / "train", tmp_path / "toy", "huggingface", "fine", 1, None)
    card = (tmp_path / "toy" / "README.md").read_text()
    assert "hsam predict T2.nii.gz ADC.nii.gz --case scan --run toy" in card
    assert "T2: high 99.5, kind percentile, low 0.5; ADC: " in card
    files = [project / "raw" / "imagesTr" / f"c0_{place:04}.nii.gz" for place in range(2)]
    predict_command.run(
        files, tmp_path / "toy", tmp_path / "out", Wanted("fine", case="scan"), None, "cpu"
    )
    assert dice(project / "raw" / "labelsTr" / "c0.nii.gz", tmp_path / "out" / "scan.nii.gz") > 0.7


def test_nnunet_gets_a_file_for_each_channel(project, tmp_path):
    params = load([project / "mine.yaml"])
    data = params.dataset.model_copy(update={"root": str(project / "raw")})
    params = params.model_copy(update={"dataset": data})
    results = project / "results"
    export_nnunet.run(params, results / "prepare", results / "split", tmp_path)
    (raw,) = (tmp_path / "nnUNet_raw").iterdir()
    about = json.loads((raw / "dataset.json").read_text())
    assert about["channel_names"] == {"0": "T2", "1": "ADC"}
    written = nib.load(raw / "imagesTr" / "c0_0001.nii.gz")
    source = nib.load(project / "raw" / "imagesTr" / "c0_0001.nii.gz")
    assert np.array_equal(written.dataobj, source.dataobj)


def params_of(root: Path, **dataset) -> Params:
    """Parameters for a data set in a folder, its labels as `hsam init` finds them."""
    block = recognise(root).model_copy(update=dataset)
    found = survey(block, 1).dataset if "channels" not in dataset else block
    return load([]).model_copy(update={"dataset": found})


def test_every_layout_gives_the_same_volumes(tmp_path):
    found, shards = [], []
    for write in (write_raw, write_decathlon, write_pairs):
        params = params_of(write(tmp_path / write.__name__, cases=2))
        assert sorted(map(str, params.dataset.channels)) == ["ADC", "T2"]
        report = check.check_data_set(params)
        assert report.problems == []
        found.append([case["channels"] for case in report.fingerprints])
        out = tmp_path / "out" / write.__name__
        prepare.run(params, out, tmp_path / "runs")
        shards.append(ShardReader(out / "shards" / "c0.parquet").read_volume()[0])
    raw, decathlon, pairs = found
    assert raw == decathlon == [case[::-1] for case in pairs]
    assert np.array_equal(shards[0], shards[1])
    assert np.array_equal(shards[0], shards[2][:, ::-1])


@pytest.mark.parametrize("wanted", [["ADC"], [1], ["1"]])
def test_one_of_several_channels_is_a_scan_of_one(tmp_path, wanted):
    for write in (write_raw, write_decathlon):
        params = params_of(write(tmp_path / write.__name__, cases=2), channels=wanted)
        report = check.check_data_set(params)
        assert report.problems == []
        (t2, adc), _ = channels(0)
        assert "channels" not in report.fingerprints[0]
        assert report.fingerprints[0]["maximum"] == pytest.approx(float(adc.max()), abs=1e-3)


def test_four_channels_want_a_choice(tmp_path):
    raw = write_raw(tmp_path / "raw", cases=2, count=4)
    advice = r"has 4 channels \(T2, ADC, DWI, T1\) and none is chosen.*\[T2, ADC, DWI\]"
    with pytest.raises(UserError, match=advice):
        init.run(raw, tmp_path / "a.yaml", gpus=0, encoder=None, steps=2, jobs=1, as_json=False)
    assert not (tmp_path / "a.yaml").exists()
    chosen = {"gpus": 0, "encoder": None, "steps": 2, "jobs": 1, "as_json": False}
    init.run(raw, tmp_path / "a.yaml", **chosen, channels="T1, 0")
    assert load([tmp_path / "a.yaml"]).dataset.channels == ["T1", "T2"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dataset": {"channels": [0, 1, 2, 3]}}, "3 inputs, found 4 channels; name the one, two"),
        ({"dataset": {"channels": ["T2", "T2"]}}, "names a channel twice"),
        ({"dataset": {"channels": []}}, "dataset.channels"),
        (
            {"prepare": {"intensity": [{"kind": "window", "low": 0, "high": 1}] * 2}},
            "prepare.intensity: .*not allowed|2 rules for 1 channel",
        ),
        (
            {
                "dataset": {"channels": ["a", "b"]},
                "prepare": {"intensity": [{"kind": "window", "low": 1.0, "high": 1.0}] * 2},
            },
            r"prepare.intensity.0: low \(1.0\) must be below high",
        ),
        (
            {
                "dataset": {"channels": ["a", "b"]},
                "prepare": {"intensity": [{"kind": "windw", "low": 1.0, "high": 2.0}] * 2},
            },
            r"prepare.intensity.0: ",
        ),
    ],
)
def test_parameters_that_are_refused(tmp_path, values, message):
    (tmp_path / "mine.yaml").write_text(json.dumps(values))
    with pytest.raises(UserError, match=message):
        load([tmp_path / "mine.yaml"])


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (None, r"has 2 channels \(T2, ADC\) and none is chosen; name.*such as \[T2, ADC\]"),
        (["T2", "FLAIR"], "has the channels 0 T2, 1 ADC, found 'FLAIR'; name some of these"),
        ([2], "has the channels 0 T2, 1 ADC, found 2"),
        (["T2", 0], "T2 is chosen twice"),
    ],
)
def test_a_choice_that_the_data_do_not_have(tmp_path, wanted, message):
    raw = write_raw(tmp_path / "raw", cases=2)
    params = make_params(dataset={"name": "nnunet", "root": str(raw), "channels": wanted})
    (problem,) = check.check_data_set(params).problems
    assert re.search(message, problem)


def test_rules_for_another_number_of_channels(tmp_path):
    raw = write_raw(tmp_path / "raw", cases=2)
    about = {"name": "nnunet", "root": str(raw), "channels": ["T2", "ADC"]}
    rule = {"kind": "window", "low": 0.0, "high": 500.0}
    params = make_params(dataset=about, prepare={"intensity": rule})
    assert len(datasets.intensity(params)) == 2
    params = make_params(dataset=about, prepare={"intensity": [rule, rule | {"high": 900.0}]})
    assert [one.high for one in datasets.intensity(params)] == [500, 900]


def test_channels_of_a_data_set_with_one_are_refused(tmp_path):
    root = tmp_path / "raw"
    save_nifti(root / "a.nii.gz", channels(0)[0][0], affine(0))
    save_nifti(root / "a_seg.nii.gz", channels(0)[1], affine(0))
    params = params_of(root, channels=["T2"], labels={"lesion": 1})
    assert (
        "has one channel, without a name; set it to null"
        in check.check_data_set(params).problems[0]
    )


def test_channels_on_other_grids_and_missing_ones(tmp_path):
    root = write_raw(tmp_path / "raw", cases=3)
    save_nifti(root / "imagesTr" / "c0_0001.nii.gz", channels(0)[0][1], affine(1))
    (root / "imagesTr" / "c1_0001.nii.gz").unlink()
    empty = np.zeros_like(channels(2)[0][1])
    save_nifti(root / "imagesTr" / "c2_0001.nii.gz", empty, affine(2))
    problems = check.check_data_set(params_of(root, channels=["T2", "ADC"])).problems
    assert len(problems) == 3
    assert re.search("c0_0001.nii.gz: expected the grid of .*c0_0000.nii.gz", problems[0])
    assert "c1_0001.nii.gz: there is no such file" in problems[1]
    assert "c2_0001.nii.gz: the image is empty" in problems[2]

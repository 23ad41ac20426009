import csv
import json
import shutil
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import h5py
import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from matplotlib.colors import to_rgb
from scipy import ndimage

import hsam
from hsam import Segmentation, SegmentationModel
from pipeline.commands import predict as predict_command
from pipeline.commands import score
from pipeline.commands.predict import Wanted, predict_scan
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Percentile, Window
from pipeline.imaging import scans, volumes
from pipeline.imaging.colours import organ_colours
from pipeline.imaging.dicom.secondary_capture import directions
from pipeline.imaging.geometry import CANONICAL
from pipeline.imaging.grids import largest_distance
from pipeline.imaging.scan_intensity import Bounds
from pipeline.imaging.scans import Source
from pipeline.inference.precision import Precision
from pipeline.inference.predictor import Predictor
from pipeline.inference.resizing import LINEAR
from pipeline.inference.scan_slices import ScanSlices
from pipeline.inference.trained import Ready
from pipeline.scoring import calibration
from pipeline.scoring.calibration import Known
from pipeline.scoring.predicted_dice import FEWEST, Pair, calibrate
from pipeline.scoring.uncertainty import Signs
from pipeline.shards.manifest import read_manifest
from pipeline.stages import evaluate, split
from tests.pipeline.conftest import AFFINE, save_nifti, save_nifti_header, tiny_image
from tests.pipeline.dicom_files import AXIAL, PATIENT, changed, write_enhanced, write_series
from tests.pipeline.grids import ENDINGS, random_grid, write_scan

WINDOW = Window(kind="window", low=-125.0, high=275.0)
SIDE = 32


class Threshold(SegmentationModel):
    """Says "organ" where the image is above a half; both stages agree."""

    def __init__(self) -> None:
        super().__init__(SIDE, 2)
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, image: torch.Tensor) -> Segmentation:
        fine = torch.cat([0.5 - image, image - 0.5], 1)
        return Segmentation(torch.nn.functional.avg_pool2d(fine, 4), fine)


def threshold(**changes) -> Predictor:
    found = {
        "ready": Ready(Threshold(), Precision("fp32"), LINEAR),
        "names": ["organ"],
        "rule": WINDOW,
        "axes": CANONICAL,
        "spacing_mm": None,
        "device": "cpu",
        "stages": ("mean", "coarse", "fine"),
        "identity": {"data_set": None},
        "usual": None,
        "channels": {},
    }
    return Predictor(**found | changes)


NOT_CALIBRATED = Known(None, "not calibrated")


def predict(
    path: Path,
    out: Path,
    predictor: Predictor | None = None,
    known: Known = NOT_CALIBRATED,
    **wanted,
) -> dict:
    """Predict with the fine stage; the record."""
    out.mkdir(parents=True, exist_ok=True)
    source = scans.find([path])[0]
    wanted = Wanted(**{"stage": "fine", "batch": 4} | wanted)
    predict_scan(source, predictor or threshold(), out, wanted, Path("a run"), known)
    return json.loads((out / f"{source.name}.json").read_text())


def scan_on(random: np.random.Generator, order: list[int], exact: bool) -> np.ndarray:
    """(x, y, z) int16 HU: noise at the model's own size, else smooth and of any size."""
    sides = random.integers(1, 7), *((SIDE, SIDE) if exact else random.integers(18, 50, 2))
    shape = [0, 0, 0]
    for axis, side in zip(order, sides, strict=True):
        shape[axis] = int(side)
    noise = random.standard_normal(shape)
    if not exact:
        noise = ndimage.gaussian_filter(noise, [0 if a == order[0] else 5 for a in range(3)])
    return (75 + 800 * noise / np.abs(noise).max()).clip(-1000, 1000).astype(np.int16)


@pytest.mark.parametrize("block", range(10))
def test_predictions_lie_on_their_scans_grid_and_in_place(tmp_path, block):
    predictor = threshold()
    for seed in range(20 * block, 20 * block + 20):
        random = np.random.default_rng(seed)
        order, affine = random_grid(random)
        exact = seed % 2 == 0
        array = scan_on(random, order, exact)
        ending = ENDINGS[seed % len(ENDINGS)]
        path = write_scan(tmp_path / f"s{seed}{ending}", array, affine)
        predict(path, tmp_path / "out", predictor)
        written = tmp_path / "out" / f"s{seed}{ending.replace('.mhd', '.mha')}"
        source, found = volumes.read(path), volumes.read(written)
        assert found.geometry.shape == source.geometry.shape
        assert np.array_equal(found.affine, source.affine)
        wanted = (array > 75).astype(np.uint8)
        if not exact:
            # resampling moves a border by a pixel at most, a shift or a flip would move all
            size = [1 if axis == order[0] else 3 for axis in range(3)]
            inner = ndimage.minimum_filter(wanted, size) == ndimage.maximum_filter(wanted, size)
            assert inner.mean() > 0.3
            assert (found.array == wanted)[inner].mean() > 0.995
        else:
            assert np.array_equal(found.array, wanted)


@pytest.fixture(scope="module")
def trained(phantom_params, prepared_phantoms, tmp_path_factory) -> Path:
    """results/ with a random H-SAM for the phantoms, evaluated; read only."""
    root = tmp_path_factory.mktemp("results")
    split.run(phantom_params, prepared_phantoms, root / "split", root / "runs")
    manifest = read_manifest(prepared_phantoms / "manifest.parquet")
    torch.manual_seed(3)
    model = hsam.build("hsam", "vit_tiny", image_size=32, num_classes=len(manifest.class_names))
    hsam.save(
        model,
        root / "train",
        class_names=manifest.class_names,
        intensity=manifest.intensity,
        preparation=manifest.preparation,
    )
    folders = (prepared_phantoms, root / "split", root / "train", root / "evaluate", root / "runs")
    evaluate.run(phantom_params, *folders, device="cpu")
    return root


def test_a_raw_scan_gets_the_labels_that_evaluate_gave_it(trained, phantom_params, tmp_path):
    images = Path(phantom_params.dataset.root) / "Training" / "img"
    assert predict_command.run([images], trained, tmp_path, Wanted(batch=16), None, "cpu")
    cases = sorted((trained / "evaluate" / "predictions").glob("*.nii.gz"))
    assert cases
    for case in cases:
        one, other = volumes.read(case), volumes.read(tmp_path / case.name)
        assert np.array_equal(one.array, other.array)
        assert largest_distance(one.geometry, other.geometry) < 1e-4


@pytest.mark.gpu
def test_a_gpu_gives_a_raw_scan_the_labels_that_evaluate_gave_it(
    trained, phantom_params, prepared_phantoms, tmp_path
):
    folders = (prepared_phantoms, trained / "split", trained / "train")
    evaluate.run(phantom_params, *folders, tmp_path / "evaluate", tmp_path / "runs", device="cuda")
    images = Path(phantom_params.dataset.root) / "Training" / "img"
    assert predict_command.run([images], trained, tmp_path / "out", Wanted(batch=16), None, "cuda")
    provenance = json.loads((tmp_path / "evaluate" / "provenance.json").read_text())
    for case in (tmp_path / "evaluate" / "predictions").glob("*.nii.gz"):
        one, other = volumes.read(case), volumes.read(tmp_path / "out" / case.name)
        assert np.array_equal(one.array, other.array)
        name = case.name.replace(".nii.gz", ".json")
        record = json.loads((tmp_path / "out" / name).read_text())
        assert record["precision"] == provenance["inference"]


def test_the_model_is_named_with_its_test_score(trained, phantom_params, tmp_path, capsys):
    image = sorted((Path(phantom_params.dataset.root) / "Training" / "img").iterdir())[0]
    assert predict_command.run([image], trained, tmp_path, Wanted(), None, "cpu")
    metrics = json.loads((trained / "evaluate" / "metrics.json").read_text())
    score = f"test Dice {metrics['mean_dice']:.4f} (mean, 2 cases"
    said = capsys.readouterr().err
    assert "predict: model hsam vit_tiny at 32 px, trained on" in said and score in said
    record = json.loads((tmp_path / image.name.replace(".nii.gz", ".json")).read_text())
    assert record["model"]["test"]["mean_dice"] == metrics["mean_dice"]
    assert record["model"]["folder"] == str(trained / "train")


def test_predicting_imports_nothing_that_only_other_commands_need():
    slow = ("scipy.stats", "matplotlib", "pandas", "highdicom", "lightning_fabric", "optuna")
    code = f"import sys, pipeline.commands.predict; print([m for m in {slow} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def calibrated(trained: Path, organs: list[str], folder: Path) -> Path:
    """The model of `trained` without its evaluation, with a calibration for these organs beside."""
    shutil.copytree(trained / "train", folder / "train")
    pairs = [
        Pair(f"case{k}", organ, Signs(0.3 + 0.05 * k, 0.4 + 0.05 * k), 0.2 + 0.05 * k)
        for k in range(FEWEST)
        for organ in organs
    ]
    weights = files.sha256(folder / "train" / "model.safetensors")
    known = Known(calibrate(pairs), "10 test cases")
    calibration.write(folder / "train" / calibration.CALIBRATION, known, "mean", weights)
    return folder / "train"


def test_every_organ_gets_a_predicted_dice_with_an_interval(
    trained, phantom_params, tmp_path, capsys
):
    image = sorted((Path(phantom_params.dataset.root) / "Training" / "img").iterdir())[0]
    name = image.name.removesuffix(".nii.gz")
    assert predict_command.run([image], trained, tmp_path / "a", Wanted(), None, "cpu")
    assert "can't be said: it takes 10 validation cases" in capsys.readouterr().err
    plain = json.loads((tmp_path / "a" / f"{name}.json").read_text())
    assert list(plain["predicted_dice"]) == ["cannot_say"]
    known = [organ for organ, voxels in plain["voxels"].items() if voxels][:-1]
    assert known and 0 in plain["voxels"].values()
    run = calibrated(trained, known, tmp_path)
    wanted = Wanted(report=tmp_path / "run.json")
    assert predict_command.run([image], run, tmp_path / "b", wanted, None, "cpu")
    said = " ".join(capsys.readouterr().err.split())
    (scan,) = json.loads((tmp_path / "run.json").read_text())["scans"]
    found = scan["predicted_dice"]
    assert (found["level"], found["calibrated_on"]) == (0.9, "10 test cases")
    assert list(found["organs"]) == list(plain["voxels"])
    for organ, voxels in plain["voxels"].items():
        one = found["organs"][organ]
        assert ("dice" in one) == (organ in known)
        if organ in known:
            assert 0 <= one["low"] <= one["dice"] <= one["high"] <= 1
            assert f"{one['dice']:.2f} {one['low']:.2f} to {one['high']:.2f}" in said
        elif not voxels:
            assert one == {"cannot_say": "not found"}
    assert "predicted Dice is calibrated on 10 test cases" in said


@pytest.mark.parametrize(
    ("wanted", "reason"), [(Wanted(tta=True), "without --tta"), (Wanted("coarse"), "not coarse")]
)
def test_a_calibration_says_nothing_of_other_predictions(
    trained, phantom_params, tmp_path, capsys, wanted, reason
):
    image = sorted((Path(phantom_params.dataset.root) / "Training" / "img").iterdir())[0]
    run = calibrated(trained, ["liver"], tmp_path)
    assert predict_command.run([image], run, tmp_path / "out", wanted, None, "cpu")
    assert reason in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / image.name.replace(".nii.gz", ".json")).read_text())
    assert reason in record["predicted_dice"]["cannot_say"]


def test_what_is_written_beside_the_label_map(trained, phantom_params, tmp_path):
    image = sorted((Path(phantom_params.dataset.root) / "Training" / "img").iterdir())[0]
    wanted = Wanted(overlay=True, probabilities=True)
    assert predict_command.run([image], trained / "train", tmp_path, wanted, None, "cpu")
    name = image.name.removesuffix(".nii.gz")
    ends = (".nii.gz", ".json", "_review.csv", "_overlay.png")
    others = {"labels_itksnap.txt", "labels_slicer.ctbl", "probabilities"}
    assert {path.name for path in tmp_path.iterdir()} == {name + end for end in ends} | others
    record = json.loads((tmp_path / f"{name}.json").read_text())
    labels = volumes.read(tmp_path / f"{name}.nii.gz")
    assert record["labels"]["liver"] == 5
    assert record["voxels"]["liver"] == int((labels.array == 5).sum())
    assert (record["low"], record["high"]) == (-125, 275)
    liver_ml = record["voxels"]["liver"] * np.prod(labels.spacing) / 1000
    assert record["millilitres"]["liver"] == pytest.approx(liver_ml, abs=1e-3)
    review = list(csv.DictReader((tmp_path / f"{name}_review.csv").open()))
    areas = [float(row["expected_mm2"]) for row in review]
    assert areas == sorted(areas, reverse=True) and areas[0] > 0
    assert all(int(row["first"]) <= int(row["slice"]) <= int(row["last"]) for row in review)


def test_probabilities_lie_on_the_same_grid_and_their_largest_is_the_label(trained, tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", tiny_image((20, 24, 6)))
    predictor = Predictor.load(trained, None, "cpu")
    predict(path, tmp_path / "out", predictor, stage="mean", probabilities=True)
    shares = nib.load(tmp_path / "out" / "probabilities" / "a.nii.gz")
    labels = nib.load(tmp_path / "out" / "a.nii.gz")
    assert shares.shape == (20, 24, 6, 9)
    np.testing.assert_allclose(shares.affine, labels.affine, atol=1e-5)
    values = shares.get_fdata()
    np.testing.assert_allclose(values.sum(-1), 1, atol=0.02)
    chosen = np.take_along_axis(values, np.asarray(labels.dataobj)[..., None].astype(int), -1)
    assert (chosen[..., 0] >= values.max(-1) - 1e-9).all()


def test_a_folder_with_everything_in_it_is_scored_as_it_is(trained, tmp_path):
    array = tiny_image((24, 24, 5))
    write_series(tmp_path / "scans" / "series", array.transpose())
    everything = Wanted(
        probabilities=True, overlay=True, dicom_seg=True, rtstruct=True, secondary_capture=True
    )
    assert predict_command.run(
        [tmp_path / "scans"], trained, tmp_path / "out", everything, None, "cpu"
    )
    assert (tmp_path / "out" / "series.seg.dcm").is_file()
    assert (tmp_path / "out" / "series.rtstruct.dcm").is_file()
    assert (tmp_path / "out" / "series.sc" / "0001.dcm").is_file()
    (tmp_path / "truth").mkdir()
    shutil.copy(tmp_path / "out" / "series.nii.gz", tmp_path / "truth")
    model = trained / "train" / "model.json"
    score.run(tmp_path / "truth", tmp_path / "out", model, tmp_path / "scores", convention="strict")
    metrics = json.loads((tmp_path / "scores" / "metrics.json").read_text())
    assert metrics["cases"] == 1 and metrics["mean_dice"] == 1


def test_a_report_holds_the_call_and_its_scans(trained, tmp_path):
    good = save_nifti(tmp_path / "a.nii.gz", tiny_image((20, 24, 6)))
    bad = tmp_path / "b.nii.gz"
    bad.write_bytes(good.read_bytes()[:200])
    wanted = Wanted(report=tmp_path / "reports" / "run.json")
    assert not predict_command.run([good, bad], trained, tmp_path / "out", wanted, None, "cpu")
    report = json.loads(wanted.report.read_text())
    assert report["device"] == "CPU" and report["versions"]["torch"] == version("torch")
    (scan,) = report["scans"]
    assert scan["scan"] == "a" and scan["sha256"] == files.sha256(good)
    assert set(scan["millilitres"]) == set(report["labels"]) and scan["seconds"] > 0
    assert list(report["failed"]) == ["b"] and report["model"]["model"] == "hsam"
    own = json.loads((tmp_path / "out" / "a.json").read_text())
    assert own == scan | {key: report[key] for key in own if key not in scan}


@pytest.mark.parametrize("ending", [".mhd", ".mha"])
def test_a_scans_hash_is_over_all_its_files(tmp_path, ending):
    path = write_scan(tmp_path / f"a{ending}", tiny_image((20, 24, 6)), AFFINE)
    found = [file.name for file in scans.read(Source("a", path)).files]
    assert found == (["a.mhd", "a.raw"] if ending == ".mhd" else ["a.mha"])


def test_the_runs_spacing_is_applied_and_undone(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", scan_on(np.random.default_rng(0), [2, 1, 0], True))
    predictor = threshold(spacing_mm=2.0)
    source = scans.read(Source("a", path))
    slices = ScanSlices(source, Bounds(-125, 275, ()), "SPL", 2.0)
    assert slices.shape == (source.volume.geometry.shape[2], 11, 13)
    assert slices[0:2].shape == (min(2, slices.shape[0]), 11, 13)
    predict(path, tmp_path / "out", predictor)
    assert volumes.read(tmp_path / "out" / "a.nii.gz").array.shape == source.volume.array.shape


def test_tta_stays_near_the_plain_prediction(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", scan_on(np.random.default_rng(1), [2, 1, 0], False))
    predict(path, tmp_path / "plain")
    predict(path, tmp_path / "tta", tta=True)
    one, other = (volumes.read(tmp_path / name / "a.nii.gz").array for name in ("plain", "tta"))
    assert 0.9 < (one == other).mean() < 1


# several models


def model(folder: Path, seed: int, name: str = "hsam", organs: int = 1, **about) -> Path:
    """A random model of 32 px for scans in HU."""
    torch.manual_seed(seed)
    built = hsam.build(name, "vit_tiny", image_size=SIDE, num_classes=organs)
    told = {
        "class_names": [f"organ {k}" for k in range(organs)],
        "intensity": WINDOW.model_dump(),
        "preparation": {"axes": CANONICAL, "spacing_mm": None},
    }
    hsam.save(built, folder, **told | about)
    return folder


def shares(out: Path, run: Path, scan: Path, **wanted) -> np.ndarray:
    """Probabilities of the second class, and the record's, as `hsam predict` writes them."""
    asked = Wanted(probabilities=True, **wanted)
    assert predict_command.run([scan], run, out, asked, None, "cpu")
    return nib.load(out / "probabilities" / scan.name).get_fdata()[..., 1]


def logit(share: np.ndarray) -> np.ndarray:
    return np.log(share.clip(0.01, 0.99) / (1 - share.clip(0.01, 0.99)))


def test_several_runs_are_averaged(tmp_path, capsys):
    scan = save_nifti(tmp_path / "a.nii.gz", tiny_image((SIDE, SIDE, 4)))
    runs = [model(tmp_path / f"run{seed}", seed) for seed in (1, 2, 3)]
    alone = [shares(tmp_path / f"out{k}", run, scan) for k, run in enumerate(runs)]
    capsys.readouterr()
    both = shares(tmp_path / "both", runs[0], scan, others=(runs[1], runs[2]))
    inner = np.logical_and.reduce([(one > 0.05) & (one < 0.95) for one in (*alone, both)])
    assert inner.mean() > 0.2 and np.abs(alone[0] - both).max() > 0.05
    mean = np.mean([logit(one) for one in alone], axis=0)
    np.testing.assert_allclose(logit(both)[inner], mean[inner], atol=0.1)  # of uint8 steps
    said = capsys.readouterr().err
    assert said.count("averaged with model hsam vit_tiny") == 2 and str(runs[2]) in said
    record = json.loads((tmp_path / "both" / "a.json").read_text())
    assert [one["folder"] for one in record["averaged_with"]] == [str(run) for run in runs[1:]]
    assert "one model alone" in record["predicted_dice"]["cannot_say"]
    assert "averaged_with" not in json.loads((tmp_path / "out0" / "a.json").read_text())


def test_snapshots_of_a_run_are_averaged_each_model_once(tmp_path, capsys):
    scan = save_nifti(tmp_path / "a.nii.gz", tiny_image((SIDE, SIDE, 4)))
    run = model(tmp_path / "run", 1)
    kept = [model(run / "snapshots" / f"epoch-0000{k}", seed) for k, seed in ((2, 2), (4, 1))]
    report = tmp_path / "run.json"
    found = shares(tmp_path / "out", run, scan, snapshots=True, report=report)
    assert "it was after 2 epochs" in capsys.readouterr().err  # after 4 it is the model itself
    told = json.loads(report.read_text())["averaged_with"]
    assert [one["folder"] for one in told] == [str(kept[0])]
    np.testing.assert_array_equal(found, shares(tmp_path / "two", run, scan, others=(kept[0],)))


def test_the_folder_of_an_arm_stands_for_the_models_of_its_runs(tmp_path):
    scan = save_nifti(tmp_path / "a.nii.gz", tiny_image((SIDE, SIDE, 4)))
    folds = [model(tmp_path / f"arm/draw-1-seed-1-fold-{k}/train", k) for k in (0, 1)]
    (tmp_path / "arm/draw-1-seed-1-fold-2/train").mkdir(parents=True)  # not trained yet
    found = shares(tmp_path / "out", tmp_path / "arm", scan)
    record = json.loads((tmp_path / "out" / "a.json").read_text())
    assert record["model"]["folder"] == str(folds[0])
    assert [one["folder"] for one in record["averaged_with"]] == [str(folds[1])]
    np.testing.assert_array_equal(
        found, shares(tmp_path / "two", folds[0], scan, others=(folds[1],))
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"organs": 2}, "expected organs organ 0, found organ 0, organ 1"),
        ({"preparation": {"axes": CANONICAL, "spacing_mm": 2.0}}, "in-plane spacing None, found 2"),
        ({"preparation": {"axes": "SAL", "spacing_mm": None}}, "axes of slices SPL, found SAL"),
        ({"intensity": WINDOW.model_dump() | {"low": 0.0}}, "'low': 0.0"),
    ],
)
def test_models_that_take_other_slices_are_not_averaged(tmp_path, changes, why):
    scan = save_nifti(tmp_path / "a.nii.gz", tiny_image((SIDE, SIDE, 4)))
    run, other = model(tmp_path / "run", 1), model(tmp_path / "other", 2, **changes)
    with pytest.raises(UserError, match="can't be averaged with") as raised:
        predict_command.run([scan], run, tmp_path / "out", Wanted(others=(other,)), None, "cpu")
    assert why in str(raised.value) and str(other) in str(raised.value)


def test_a_run_without_snapshots_says_how_to_get_some(tmp_path):
    scan = save_nifti(tmp_path / "a.nii.gz", tiny_image((SIDE, SIDE, 4)))
    with pytest.raises(UserError, match="train with train.snapshots"):
        predict_command.run(
            [scan],
            model(tmp_path / "run", 1),
            tmp_path / "out",
            Wanted(snapshots=True),
            None,
            "cpu",
        )


def test_of_models_of_one_and_of_two_stages_the_mean_is_averaged(tmp_path):
    scan = save_nifti(tmp_path / "a.nii.gz", tiny_image((SIDE, SIDE, 4)))
    run, other = model(tmp_path / "run", 1), model(tmp_path / "other", 2, "samed")
    assert shares(tmp_path / "out", run, scan, others=(other,)).max() > 0
    with pytest.raises(UserError, match="no fine stage; choose mean"):
        predict_command.run([scan], run, tmp_path / "out", Wanted("fine", (other,)), None, "cpu")


# DICOM


def test_a_dicom_series_becomes_nifti_and_a_segmentation(tmp_path):
    random = np.random.default_rng(2)
    array = random.integers(-1000, 1000, (5, SIDE, SIDE), np.int16)
    write_series(tmp_path / "series", array, step=(0, 0, -3.0))
    predictor = threshold(names=["right kidney"])
    record = predict(tmp_path / "series", tmp_path / "out", predictor, dicom_seg=True)
    found = volumes.read(tmp_path / "out" / "series.nii.gz")
    # sorted from the feet: the last slice that was written is the first
    assert np.array_equal(found.array, (array[::-1] > 75).transpose(2, 1, 0))
    np.testing.assert_allclose(found.spacing, (0.7, 0.8, 3))
    seg = hd.seg.segread(tmp_path / "out" / "series.seg.dcm")
    segment = seg.get_segment_description(1)
    assert segment.segment_label == "right kidney"
    assert segment.segmented_property_type.meaning == "Kidney"
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Right"
    sources = {
        pydicom.dcmread(path).SOPInstanceUID: path for path in (tmp_path / "series").iterdir()
    }
    for uid, path in sources.items():
        index = pydicom.dcmread(path).InstanceNumber - 1
        pixels = seg.get_pixels_by_source_instance([uid], ignore_spatial_locations=True)
        assert np.array_equal(pixels[0, ..., 0], array[index] > 75)
    text = json.dumps(record)
    assert not any(value in text for value in PATIENT.values())


def test_a_multi_frame_file_becomes_nifti_and_a_segmentation(tmp_path):
    array = np.random.default_rng(2).integers(-1000, 1000, (5, SIDE, SIDE), np.int16)
    write_enhanced(tmp_path / "ct" / "ct.dcm", array, order=(3, 0, 4, 1, 2))
    predict(tmp_path / "ct", tmp_path / "out", dicom_seg=True)
    found = volumes.read(tmp_path / "out" / "ct.nii.gz")
    assert np.array_equal(found.array, (array > 75).transpose(2, 1, 0))
    uid = pydicom.dcmread(tmp_path / "ct" / "ct.dcm").SOPInstanceUID
    seg = hd.seg.segread(tmp_path / "out" / "ct.seg.dcm")
    pixels = seg.get_pixels_by_source_frame(uid, [1, 2, 3, 4, 5], ignore_spatial_locations=True)
    assert np.array_equal(pixels[..., 0], array[[3, 0, 4, 1, 2]] > 75)


@pytest.mark.parametrize("axes", [AXIAL, (-1, 0, 0, 0, -1, 0), (0.8, 0.6, 0, 0, 0, -1)])
def test_pictures_of_a_series_lie_in_its_study_as_it_was_acquired(tmp_path, axes):
    array = np.full((6, SIDE, SIDE), -125, np.int16)
    array[2:5, 4:10, 6:9] = 275  # white, and an organ
    array[:, 0, 0] = 0  # 125 of the window's 400 HU: dark grey, and none
    step = 3 * np.cross(axes[:3], axes[3:])
    write_series(tmp_path / "series", array, axes=axes, step=step.tolist())
    record = predict(tmp_path / "series", tmp_path / "out", secondary_capture=True)
    files = sorted((tmp_path / "out" / "series.sc").iterdir())
    assert [path.name for path in files] == ["0001.dcm", "0002.dcm", "0003.dcm"]
    sources = {
        int(image.InstanceNumber): image
        for image in map(pydicom.dcmread, (tmp_path / "series").iterdir())
    }
    colour = np.round(255 * (0.55 + 0.45 * np.array(to_rgb(organ_colours(["organ"])[0]))))
    series = set()
    for number, path in enumerate(files, 3):
        found, source = pydicom.dcmread(path), sources[number]
        pixels = found.pixel_array
        assert pixels.shape == (SIDE, SIDE, 3)
        inside = array[number - 1] == 275
        np.testing.assert_allclose(pixels[inside], np.broadcast_to(colour, (18, 3)), atol=1)
        assert pixels[0, 0].tolist() == [80, 80, 80]
        assert not pixels[~inside & (array[number - 1] == -125)].any()
        for tag in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "StudyDate"):
            assert found[tag].value == source[tag].value
        for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            np.testing.assert_allclose(found[tag].value, source[tag].value, atol=1e-5)
        assert found.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert found.SOPClassUID == pydicom.uid.SecondaryCaptureImageStorage
        assert "not for diagnostic use" in found.SeriesDescription
        assert "(organ) over the image, whose values -125 to 275" in found.DerivationDescription
        series.add(found.SeriesInstanceUID)
        assert found.SeriesInstanceUID != source.SeriesInstanceUID
    assert len(series) == 1
    text = json.dumps(record)
    assert not any(value in text for value in PATIENT.values())


def test_pictures_are_replaced_whole_and_frames_are_named(tmp_path):
    array = np.random.default_rng(2).integers(-1000, 1000, (5, SIDE, SIDE), np.int16)
    write_enhanced(tmp_path / "ct" / "ct.dcm", array, order=(3, 0, 4, 1, 2))
    (tmp_path / "out" / "ct.sc").mkdir(parents=True)
    (tmp_path / "out" / "ct.sc" / "0099.dcm").write_text("of an earlier call")
    predict(tmp_path / "ct", tmp_path / "out", secondary_capture=True)
    files = sorted((tmp_path / "out" / "ct.sc").iterdir())
    assert [path.name for path in files] == [f"{number:04}.dcm" for number in range(1, 6)]
    references = [pydicom.dcmread(path).SourceImageSequence[0] for path in files]
    assert [reference.ReferencedFrameNumber for reference in references] == [2, 4, 5, 1, 3]


def test_pictures_that_headers_do_not_allow_are_warned_of(tmp_path):
    array = np.random.default_rng(2).integers(-1000, 1000, (5, SIDE, SIDE), np.int16)
    for path in write_series(tmp_path / "series", array):
        changed(path, StudyInstanceUID=None)
    record = predict(tmp_path / "series", tmp_path / "out", secondary_capture=True)
    assert any("no Secondary Capture was written" in warning for warning in record["warnings"])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "series.json",
        "series.nii.gz",
        "series_review.csv",
    ]


def test_no_warning_of_a_library_names_the_patient(tmp_path, capsys, recwarn):
    array = np.random.default_rng(2).integers(-1000, 1000, (5, SIDE, SIDE), np.int16)
    write_series(tmp_path / "series", array, PatientName="Mononym")
    wanted = {"dicom_seg": True, "rtstruct": True, "secondary_capture": True}
    predict(tmp_path / "series", tmp_path / "out", **wanted)
    assert (tmp_path / "out" / "series.sc").is_dir()
    told = " ".join(str(warning.message) for warning in recwarn) + "".join(capsys.readouterr())
    assert "Mononym" not in told


@pytest.mark.parametrize(
    ("direction", "letters"),
    [((1, 0, 0), "L"), ((0, -1, 0), "A"), ((0.8, 0.6, 0), "LP"), ((0.05, 0, -1), "F")],
)
def test_directions_are_named_the_nearest_axis_first(direction, letters):
    assert directions(np.array(direction)) == letters


def test_frames_of_several_files_have_no_segmentation(tmp_path):
    array = np.random.default_rng(2).integers(-1000, 1000, (4, SIDE, SIDE), np.int16)
    for name, order in (("a", (0, 1)), ("b", (2, 3))):
        path = write_enhanced(tmp_path / "ct" / f"{name}.dcm", array, order=order)
        changed(path, SeriesInstanceUID="1.2.3")
    record = predict(tmp_path / "ct", tmp_path / "out", dicom_seg=True)
    assert any("refers to one multi-frame file" in warning for warning in record["warnings"])
    found = volumes.read(tmp_path / "out" / "ct.nii.gz")
    assert np.array_equal(found.array, (array > 75).transpose(2, 1, 0))
    assert not (tmp_path / "out" / "ct.seg.dcm").exists()


def test_dicom_without_images_is_no_scan(tmp_path):
    write_series(tmp_path / "cd" / "ct", tiny_image((4, 20, 20)))
    (report,) = write_series(tmp_path / "cd" / "report", tiny_image((1, 20, 20)))
    changed(report, Modality="SR")
    assert [source.name for source in scans.find([tmp_path / "cd"])] == ["ct"]


def test_gantry_tilt_goes_through_with_a_warning(tmp_path):
    array = np.random.default_rng(2).integers(-1000, 1000, (5, SIDE, SIDE), np.int16)
    write_series(tmp_path / "series", array, step=(0, 0.8, 3.0))
    record = predict(tmp_path / "series", tmp_path / "out", dicom_seg=True)
    assert any("gantry was tilted" in warning for warning in record["warnings"])
    found = volumes.read(tmp_path / "out" / "series.nii.gz")
    assert np.array_equal(found.array, (array > 75).transpose(2, 1, 0))
    np.testing.assert_allclose(found.affine[:3, 2], (0, -0.8, 3), rtol=1e-6)


class Unused(Threshold):
    def forward(self, image: torch.Tensor) -> Segmentation:
        raise AssertionError("predicted in vain")


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_format_without_room_for_tilt_is_refused_before_predicting(tmp_path, ending):
    write_series(tmp_path / "series", tiny_image((5, SIDE, SIDE)), step=(0, 0.8, 3.0))
    sheared = AFFINE.copy()
    sheared[1, 2] = 1
    nifti = save_nifti(tmp_path / "a.nii.gz", tiny_image(), sheared)
    for path in (tmp_path / "series", nifti):
        with pytest.raises(UserError, match="no place for the source's sheared grid .* nii.gz"):
            predict(
                path,
                tmp_path / "out",
                threshold(ready=Ready(Unused(), Precision("fp32"), LINEAR)),
                ending=ending,
            )
    assert list((tmp_path / "out").iterdir()) == []


def test_a_segmentation_without_any_organ_is_not_written(tmp_path):
    array = np.linspace(-1000, 60, 5 * SIDE * SIDE).reshape(5, SIDE, SIDE).astype(np.int16)
    write_series(tmp_path / "series", array)
    record = predict(tmp_path / "series", tmp_path / "out", dicom_seg=True)
    assert any("no organ was found" in warning for warning in record["warnings"])
    assert not (tmp_path / "out" / "series.seg.dcm").exists()


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"PatientBirthDate": None}, "lack PatientBirthDate"),
        ({"StudyInstanceUID": None}, "lack StudyInstanceUID"),
        ({"SeriesInstanceUID": ""}, "the files have several series UIDs"),
    ],
)
def test_headers_that_allow_no_segmentation_are_warned_of(tmp_path, tags, reason):
    array = np.random.default_rng(2).integers(-1000, 1000, (5, SIDE, SIDE), np.int16)
    for path in write_series(tmp_path / "series", array):
        changed(path, **tags)
        if "SeriesInstanceUID" in tags:
            changed(path, SeriesInstanceUID=pydicom.uid.generate_uid())
    record = predict(tmp_path / "series", tmp_path / "out", dicom_seg=True)
    assert any(reason in warning for warning in record["warnings"])
    assert (tmp_path / "out" / "series.nii.gz").is_file()
    assert not (tmp_path / "out" / "series.seg.dcm").exists()


def test_the_record_says_what_was_guessed(tmp_path, capsys):
    unplaced = {"qform_code": 0, "sform_code": 0}
    path = save_nifti_header(tmp_path / "a.nii", tiny_image(), **unplaced)
    record = predict(path, tmp_path / "out")
    assert record["warnings"][0].startswith("qform and sform codes are 0")
    assert f"warning: a: {record['warnings'][0]}" in " ".join(capsys.readouterr().err.split())
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["image"] = tiny_image().astype(">i2")
    record = predict(tmp_path / "b.h5", tmp_path / "out")
    assert record["spacing_mm"] == [0.625] * 3
    assert "0.625 mm along each axis is a guess" in record["warnings"][0]
    with h5py.File(tmp_path / "b.h5", "a") as file:
        file["image"].attrs["affine"] = AFFINE
    record = predict(tmp_path / "b.h5", tmp_path / "out")
    assert record["spacing_mm"] == pytest.approx([0.8, 0.7, 3.0])
    assert not any("HDF5" in warning for warning in record["warnings"])


def test_a_scan_of_the_longest_name(tmp_path):
    path = save_nifti(tmp_path / f"{'x' * 247}.nii", tiny_image())
    other = save_nifti(tmp_path / f"{'x' * 246}y.nii", tiny_image())
    names = [source.name for source in scans.find([path, other])]
    assert len(set(names)) == 2 and {len(name) for name in names} == {scans.LONGEST_NAME}
    predict(path, tmp_path / "out", probabilities=True, overlay=True)
    assert (tmp_path / "out" / f"{names[0]}.nii").is_file()


def test_a_segmentation_needs_dicom(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", tiny_image())
    with pytest.raises(UserError, match="--dicom-seg needs a DICOM series"):
        predict(path, tmp_path / "out", dicom_seg=True)


# bad input


def with_nan() -> np.ndarray:
    array = tiny_image().astype(np.float32)
    array[3:5, 2, 1] = np.nan
    array[0, 0, 0] = np.inf
    return array


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((10, 20, 30), -1000, np.int16), "the image is empty: every voxel is -1000"),
        (np.full((10, 20, 30), np.nan, np.float32), "no voxel has a finite value"),
        (np.random.default_rng(0).random((10, 20, 30), np.float32), "in CT that range is imposs"),
        (tiny_image() + np.int16(8000), "expected values around the run's window"),
        (tiny_image((10, 20, 30, 2)), "expected a 3-D volume, found 4 dimensions"),
        (
            np.zeros((5, 6, 7), [("R", "u1"), ("G", "u1"), ("B", "u1")]),
            "one value a voxel, found 3",
        ),
    ],
)
def test_a_scan_that_can_not_be_predicted(tmp_path, array, message):
    path = save_nifti(tmp_path / "a.nii.gz", array)
    with pytest.raises(UserError, match=message) as error:
        predict(path, tmp_path / "out")
    assert "a" in str(error.value).split(":")[0]
    assert not any(path.suffix != ".txt" for path in (tmp_path / "out").iterdir())


def test_a_truncated_file_is_named(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", tiny_image())
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(UserError, match=r"a.nii.gz: can't be read, damaged or truncated"):
        predict(path, tmp_path / "out")


def test_nan_voxels_are_told_and_taken_as_the_lower_bound(tmp_path):
    record = predict(save_nifti(tmp_path / "a.nii.gz", with_nan()), tmp_path / "out")
    assert "voxels that are NaN or infinite: 3; they were taken as -125." in record["warnings"]
    found = volumes.read(tmp_path / "out" / "a.nii.gz").array
    assert found[3, 2, 1] == found[0, 0, 0] == 0


def test_percentiles_are_those_of_the_finite_voxels(tmp_path):
    predictor = threshold(rule=Percentile(kind="percentile", low=0.0, high=100.0))
    record = predict(save_nifti(tmp_path / "a.nii.gz", with_nan()), tmp_path / "out", predictor)
    array = with_nan()
    finite = array[np.isfinite(array)]
    assert (record["low"], record["high"]) == (finite.min(), finite.max())


@pytest.mark.parametrize(
    ("array", "hint"),
    [
        (tiny_image((40, 50, 1)), "one axial slice"),
        ((tiny_image() + np.int16(1000)).astype(np.uint16), "rescale intercept is missing"),
        (tiny_image().astype(np.int32) * 100, "which CT can't have"),
        ((tiny_image() // 500 + 2).astype(np.int64) * 30, "a label map?"),
    ],
)
def test_an_unusual_scan_is_predicted_with_a_warning(tmp_path, array, hint, capsys):
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(array, AFFINE, dtype=array.dtype), path)
    record = predict(path, tmp_path / "out")
    assert any(hint in warning for warning in record["warnings"])
    assert f"warning: a: {record['warnings'][0]}" in capsys.readouterr().err
    assert volumes.read(tmp_path / "out" / "a.nii.gz").array.shape == array.shape


def test_another_modality_than_the_runs_is_refused_or_told(tmp_path):
    array = np.random.default_rng(2).integers(-1000, 1000, (5, SIDE, SIDE), np.int16)
    write_series(tmp_path / "mr", array, Modality="MR")
    with pytest.raises(UserError, match="expected CT.*found a series of modality MR"):
        predict(tmp_path / "mr", tmp_path / "out")
    write_series(tmp_path / "ct", array)
    predictor = threshold(rule=Percentile(kind="percentile", low=0.5, high=99.5))
    record = predict(tmp_path / "ct", tmp_path / "out", predictor)
    assert any(
        "the series is CT, but the run scales by percentiles" in w for w in record["warnings"]
    )


# the command


def hsam_predict(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "predict"]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two good scans, a DICOM series and a truncated file."""
    root = tmp_path / "scans"
    save_nifti(root / "one.nii.gz", tiny_image())
    write_scan(root / "two.mha", tiny_image(), AFFINE)
    write_series(root / "series", tiny_image((4, 20, 20)))
    bad = save_nifti(root / "bad.nii.gz", tiny_image())
    bad.write_bytes(bad.read_bytes()[:-500])
    (root / "notes.txt").write_text("not a scan")
    return root


def test_a_folder_goes_on_after_a_bad_file_and_ends_with_a_table(folder, trained, tmp_path):
    done = hsam_predict(folder, "--run", trained, "--out", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 1
    assert "predict: 3 of 4 scans" in done.stderr
    table = done.stderr[done.stderr.index("what failed and why") :]
    assert "bad" in table and "damaged or truncated" in table
    assert "Traceback" not in done.stderr
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"one.nii.gz", "two.mha", "series.nii.gz"} <= found
    assert not any(name.startswith("bad") for name in found)
    assert not any(value in done.stderr + done.stdout for value in PATIENT.values())


def test_the_format_asked_for(folder, trained, tmp_path):
    arguments = ("--run", trained, "--out", tmp_path / "out", "--device", "cpu", "--format", "nrrd")
    assert hsam_predict(folder / "one.nii.gz", *arguments).returncode == 0
    assert (tmp_path / "out" / "one.nrrd").is_file()


@cache
def refusals(trained: Path, scan: Path) -> dict[str, tuple[tuple[object, ...], str]]:
    other = scan.parent / "copy" / "one.nii"
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(b"")
    return {
        "no run": ((scan, "--run", scan.parent), "expected a trained model"),
        "no scan": ((scan.parent / "none.nii", "--run", trained), "no such file or folder"),
        "a text": ((scan.parent / "notes.txt", "--run", trained), "expected one of .nii.gz"),
        "two of a name": ((scan, other, "--run", trained), "would be named one"),
    }


@pytest.mark.parametrize("what", ["no run", "no scan", "a text", "two of a name"])
def test_a_mistake_is_a_sentence_and_writes_nothing(folder, trained, tmp_path, what):
    arguments, message = refusals(trained, folder / "one.nii.gz")[what]
    done = hsam_predict(*arguments, "--out", tmp_path / "out", "--device", "cpu")
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_label_map_never_replaces_a_scan(folder, trained):
    before = (folder / "one.nii.gz").read_bytes()
    with pytest.raises(UserError, match="its label map would replace a scan"):
        predict_command.run([folder / "one.nii.gz"], trained, folder, Wanted(), None, "cpu")
    assert (folder / "one.nii.gz").read_bytes() == before


def test_the_only_scan_that_is_bad_is_an_error(folder, trained, tmp_path):
    with pytest.raises(UserError, match="damaged or truncated"):
        predict_command.run([folder / "bad.nii.gz"], trained, tmp_path / "o", Wanted(), None, "cpu")


def test_a_run_that_does_not_say_how_it_was_prepared(trained, tmp_path, folder):
    shutil.copytree(trained / "train", tmp_path / "run")
    path = tmp_path / "run" / "model.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"intensity": None}))
    with pytest.raises(UserError, match="the run can't be applied to a scan"):
        Predictor.load(tmp_path / "run", None, "cpu")
    for key, wrong in (("preparation", {"axes": "LPX"}), ("resizing", "bicubic")):
        path.write_text(json.dumps(record | {key: wrong}))
        with pytest.raises(UserError, match=r"model\.json: can't be read \(.*expected"):
            Predictor.load(tmp_path / "run", None, "cpu")
    path.write_text(json.dumps(record | {"preparation": {"spacing_mm": None}}))
    assert Predictor.load(tmp_path / "run", None, "cpu").axes == CANONICAL

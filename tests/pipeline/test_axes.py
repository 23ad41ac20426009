"""A run with slices along other axes, from preparation to pictures."""

import csv
from pathlib import Path

import numpy as np
import pytest

from pipeline.commands import predict as predict_command
from pipeline.commands.predict import Wanted
from pipeline.core import files
from pipeline.core.params.load import validate
from pipeline.imaging import volumes
from pipeline.imaging.geometry import source_slice, to_slices
from pipeline.reporting.pictures import read_figure_data, read_prediction
from pipeline.scoring.runs import read_runs
from pipeline.shards.case import ShardReader
from pipeline.shards.manifest import read_manifest
from pipeline.stages import evaluate, prepare, split
from tests.pipeline.stages.test_evaluate import save_model

CASES = ("img0004", "img0005")


@pytest.fixture(scope="module", params=["SAL", "IRA", "LIP"])
def results(request, phantom_params, tmp_path_factory):
    """results/ of an untrained model along these axes, and the axes; read only."""
    root = tmp_path_factory.mktemp(request.param)
    values = phantom_params.model_dump(mode="json")
    params = validate(values | {"prepare": values["prepare"] | {"axes": request.param}}, "test")
    prepare.run(params, root / "prepare", root / "runs")
    split.run(params, root / "prepare", root / "split", root / "runs")
    save_model(root / "train", read_manifest(root / "prepare" / "manifest.parquet"))
    folders = (root / "prepare", root / "split", root / "train", root / "evaluate", root / "runs")
    evaluate.run(params, *folders, device="cpu")
    return root, request.param


def raw(params, case: str, kind: str) -> volumes.Volume:
    name = case if kind == "img" else case.replace("img", "label")
    return volumes.read(Path(params.dataset.root) / "Training" / kind / f"{name}.nii.gz")


def test_shards_lie_along_the_axes(results, phantom_params):
    root, axes = results
    manifest = read_manifest(root / "prepare" / "manifest.parquet")
    assert manifest.axes == axes
    for row in manifest:
        image = raw(phantom_params, row.case, "img")
        images, _ = ShardReader(root / "prepare" / "shards" / row.shard).read_volume()
        expected = to_slices(np.clip(image.array, -125, 275), image.geometry, axes)
        assert np.array_equal(np.rint(images * 400 - 125), expected)
        assert row.spacing_mm == pytest.approx(image.geometry.sliced_spacing(axes))


def test_a_raw_scan_gets_the_labels_that_evaluate_gave_it(results, phantom_params, tmp_path):
    root, axes = results
    images = Path(phantom_params.dataset.root) / "Training" / "img"
    wanted = Wanted(overlay=True, probabilities=True)
    for case in CASES:
        scan = images / f"{case}.nii.gz"
        assert predict_command.run([scan], root, tmp_path, wanted, None, "cpu")
        found = volumes.read(tmp_path / f"{case}.nii.gz")
        scored = volumes.read(root / "evaluate" / "predictions" / f"{case}.nii.gz")
        assert np.array_equal(found.array, scored.array) and found.array.any()
        assert files.read_json(tmp_path / f"{case}.json")["slice_axes"] == axes
        shares = volumes.nib.load(tmp_path / "probabilities" / f"{case}.nii.gz").get_fdata()
        chosen = np.take_along_axis(shares, found.array[..., None].astype(int), -1)
        assert (chosen[..., 0] >= shares.max(-1) - 1e-9).all()


def test_the_review_list_names_the_end_that_slices_count_from(results, phantom_params, tmp_path):
    root, axes = results
    scan = Path(phantom_params.dataset.root) / "Training" / "img" / "img0004.nii.gz"
    assert predict_command.run([scan], root, tmp_path, Wanted(), None, "cpu")
    rows = list(csv.DictReader((tmp_path / "img0004_review.csv").open()))
    column = {"SAL": "slice", "IRA": "slice_from_head", "LIP": "slice_from_right"}[axes]
    geometry = volumes.read(scan).geometry
    assert rows
    for row in rows:
        place = source_slice(geometry, axes, int(row[column]))
        assert place == int(row["source_slice"])
        marked = np.zeros(geometry.shape, np.uint8)
        marked[tuple(int(index) for index in row["voxel"].split())] = 1
        assert np.flatnonzero(to_slices(marked, geometry, axes).any(axis=(1, 2))) == int(
            row[column]
        )


def test_pictures_are_the_radiological_display(results, phantom_params):
    root, axes = results
    (run,) = read_runs([root / "evaluate"], ["a"])
    data = read_figure_data(root / "prepare", [run])
    display = {"SAL": "SPL", "IRA": "IPL", "LIP": "LIP"}[axes]
    for case in CASES:
        image = raw(phantom_params, case, "img")
        expected = to_slices(np.clip(image.array, -125, 275), image.geometry, display)
        label = root / "evaluate" / "predictions" / f"{case}.nii.gz"
        labels = read_prediction(label, expected.shape[1:], display)
        for index in (0, len(expected) // 2):
            shown = data.slice(case, index)
            assert np.array_equal(np.rint(shown.image * 400 - 125), expected[index])
            assert shown.spacing_mm == pytest.approx(image.geometry.sliced_spacing(display))
            assert np.array_equal(data.prediction(run, case, index), labels[index])


def test_the_precision_is_recorded(results, phantom_params, tmp_path):
    root, _ = results
    wanted = {"encoder": "fp32", "decoders": "fp32", "tf32": False}
    assert files.read_json(root / "evaluate" / "provenance.json")["inference"] == wanted
    scan = Path(phantom_params.dataset.root) / "Training" / "img" / "img0004.nii.gz"
    assert predict_command.run([scan], root, tmp_path, Wanted(), None, "cpu")
    assert files.read_json(tmp_path / "img0004.json")["precision"] == wanted

"""Folders that nnU-Net has left, scored without being told what they hold."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pipeline.commands import score
from pipeline.core.errors import UserError
from tests.pipeline.conftest import save_nifti

SHAPE = (12, 10, 8)
LABELS = {"background": 0, "liver": 1, "spleen": 2, "gallbladder": 3, "ignore": 4}


@pytest.fixture
def nnunet(tmp_path) -> Path:
    """Folders labelsTr and predicted of two cases, and dataset.json in both places."""
    rng = np.random.Generator(np.random.Philox(key=5))
    for case in ("a", "b"):
        truth = rng.choice(np.array([0, 1, 2], np.uint8), SHAPE)
        wrong = rng.random(SHAPE) < 0.2
        save_nifti(tmp_path / "labelsTr" / f"{case}.nii.gz", truth)
        save_nifti(tmp_path / "predicted" / f"{case}.nii.gz", np.where(wrong, 1, truth))
    for folder in (tmp_path, tmp_path / "predicted"):
        (folder / "dataset.json").write_text(json.dumps({"labels": LABELS}))
    return tmp_path


def own_scores(folder: Path, without: int | None = None, shift: float = 0.0) -> None:
    """summary.json, as nnU-Net computes it: Dice over the voxels that have a truth."""
    entries = []
    for path in sorted((folder / "predicted").glob("*.nii.gz")):
        reference = folder / "labelsTr" / path.name
        true, predicted = (np.asarray(nib.load(p).dataobj) for p in (reference, path))
        known = true != without if without is not None else np.ones(SHAPE, bool)
        metrics = {}
        for label in (1, 2, 3):
            masks = [(array == label) & known for array in (true, predicted)]
            total = sum(int(mask.sum()) for mask in masks)
            dice = 2 * int((masks[0] & masks[1]).sum()) / total + shift if total else float("nan")
            metrics[str(label)] = {"Dice": dice}
        paths = {"reference_file": str(reference), "prediction_file": str(path)}
        entries.append({"metrics": metrics, **paths})
    (folder / "predicted" / "summary.json").write_text(json.dumps({"metric_per_case": entries}))


def scored(folder: Path, truth: Path | None = None) -> pd.DataFrame:
    score.run(truth, folder / "predicted", None, folder / "scores", convention="nnunet")
    return pd.read_csv(folder / "scores" / "cases.csv").set_index(["case", "organ"])


@pytest.mark.parametrize("where", ["", "predicted"])
def test_labels_are_found_where_nnunet_leaves_them(nnunet, where):
    expected = scored(nnunet, nnunet / "labelsTr")
    (nnunet / where / "dataset.json").unlink()
    pd.testing.assert_frame_equal(scored(nnunet, nnunet / "labelsTr"), expected)
    assert list(expected.loc["a"].index) == ["liver", "spleen", "gallbladder"]


def test_the_truth_is_that_of_its_summary_and_its_dice_is_ours(nnunet, capsys):
    own_scores(nnunet)
    save_nifti(nnunet / "labelsTr" / "of-another-fold.nii.gz", np.zeros(SHAPE, np.uint8))
    table = scored(nnunet)
    summary = json.loads((nnunet / "predicted" / "summary.json").read_text())
    for entry, case in zip(summary["metric_per_case"], ("a", "b"), strict=True):
        found = table.loc[case]["dice"].to_list()
        theirs = [entry["metrics"][label]["Dice"] for label in ("1", "2", "3")]
        np.testing.assert_allclose(found, theirs)
    assert "nnU-Net's own Dice is the same in all 6 pairs" in capsys.readouterr().err
    own_scores(nnunet, shift=0.1)
    scored(nnunet)
    printed = " ".join(capsys.readouterr().err.split())
    assert "nnU-Net's Dice is another in 4 of 6 pairs of case and organ; the first: a: liver" in (
        printed
    )


def test_voxels_without_truth_are_not_scored(nnunet, capsys):
    for path in (nnunet / "labelsTr").iterdir():
        truth = np.asarray(nib.load(path).dataobj).copy()
        truth[:, :, :4] = 4
        save_nifti(path, truth)
    own_scores(nnunet, without=4)
    table = scored(nnunet)
    printed = " ".join(capsys.readouterr().err.split())
    assert "nnU-Net's own Dice is the same in all 6 pairs" in printed
    assert "a: 50% of its voxels have no truth and are not scored." in printed
    assert "belong to no organ" not in printed
    for case in ("a", "b"):
        for folder in ("labelsTr", "predicted"):
            path = nnunet / folder / f"{case}.nii.gz"
            labels = np.asarray(nib.load(path).dataobj).copy()
            labels[:, :, :4] = 0
            save_nifti(path, labels)
    pd.testing.assert_frame_equal(scored(nnunet), table)


def test_what_nobody_says_has_to_be_named(nnunet):
    with pytest.raises(UserError, match=r"--truth: which folder has the true labels\?"):
        scored(nnunet)
    own_scores(nnunet)
    (nnunet / "labelsTr").rename(nnunet / "elsewhere")
    with pytest.raises(UserError, match=r"summary\.json: its true labels .* name their folder"):
        scored(nnunet)
    for path in nnunet.rglob("dataset.json"):
        path.unlink()
    with pytest.raises(UserError, match=r"--labels: which labels do the organs have\?"):
        scored(nnunet, nnunet / "elsewhere")
    (nnunet / "predicted" / "summary.json").write_text("{}")
    with pytest.raises(UserError, match="expected nnU-Net's scores, a list metric_per_case"):
        scored(nnunet)
    assert not (nnunet / "scores").exists()

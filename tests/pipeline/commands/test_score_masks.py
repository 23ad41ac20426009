"""Scores of one mask file an organ, as TotalSegmentator writes them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.scoring.measures import measure
from pipeline.scoring.organs import read_file_names
from tests.pipeline.commands.scored import problems, scored
from tests.pipeline.conftest import AFFINE, save_nifti
from tests.pipeline.masks import blob
from tests.pipeline.test_cli import hsam

ORGANS = {"liver": 6, "right kidney": 2, "gallbladder": 4}
FILES = {"liver": "liver", "right kidney": "kidney_right", "gallbladder": "gallbladder"}
CASES = ("s0011", "s0058")


def mask(case: str, organ: str, side: str) -> np.ndarray:
    """(x, y, z), without overlap between organs; no gallbladder is predicted."""
    place = list(ORGANS).index(organ)
    seed = 10 * CASES.index(case) + place + (50 if side == "prediction" else 0)
    inside = blob(seed).transpose() & (organ != "gallbladder" or side == "truth")
    inside[np.arange(inside.shape[0]) % len(ORGANS) != place] = False
    return inside


def write_masks(folder: Path, side: str) -> Path:
    for case in CASES:
        for organ, name in FILES.items():
            array = mask(case, organ, side).astype(np.uint8)
            save_nifti(folder / case / f"{name}.nii.gz", array)
    return folder


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    """Truth as label maps, prediction as masks, and the labels of the truth."""
    for case in CASES:
        volume = sum(label * mask(case, organ, "truth") for organ, label in ORGANS.items())
        save_nifti(tmp_path / "truth" / f"{case}.nii.gz", volume.astype(np.uint8))
    write_masks(tmp_path / "prediction", "prediction")
    (tmp_path / "labels.json").write_text(json.dumps(ORGANS))
    return {name: tmp_path / name for name in ("truth", "prediction")} | {
        "labels": tmp_path / "labels.json"
    }


def test_masks_are_found_by_case_and_organ(folders):
    table = scored(folders)
    spacing = np.linalg.norm(AFFINE[:3, :3], axis=0)
    for case in CASES:
        for organ in ("liver", "right kidney"):
            expected = measure(mask(case, organ, "truth"), mask(case, organ, "prediction"), spacing)
            row = table.loc[case, organ]
            assert row["predicted_voxels"] == expected.predicted_voxels > 0
            assert row["hd95_mm"] == pytest.approx(expected.scores["hd95_mm"])
        assert table.loc[case, "gallbladder"]["predicted_voxels"] == 0


def test_the_truth_may_be_masks_too(folders):
    expected = scored(folders)
    folders["truth"] = write_masks(folders["truth"].parent / "masks", "truth")
    pd.testing.assert_frame_equal(scored(folders), expected)


def test_a_pattern_names_deeper_files(folders):
    expected = scored(folders)
    for case in CASES:
        masks = folders["prediction"] / case
        for path in sorted(masks.iterdir()):
            (masks / "segmentations").mkdir(exist_ok=True)
            path.rename(masks / "segmentations" / path.name)
    found = scored(folders, names=("{case}", "{case}/segmentations/{organ}"))
    pd.testing.assert_frame_equal(found, expected)


def test_organs_of_several_files(folders):
    names = folders["prediction"].parent / "files.json"
    names.write_text(json.dumps({"liver": "liver", "both": ["kidney_right", "gallbladder"]}))
    folders["labels"].write_text(json.dumps({"liver": 6, "both": [2, 4]}))
    table = scored(folders, prediction_labels=names)
    for case in CASES:
        one, other = (mask(case, o, "prediction") for o in ("right kidney", "gallbladder"))
        assert table.loc[case, "both"]["predicted_voxels"] == (one | other).sum()
    with pytest.raises(UserError, match=r"no mask file for both \(both\).*name its files"):
        scored(folders)


def test_an_organ_without_a_file_is_refused_by_name(folders):
    for case in CASES:
        (folders["prediction"] / case / "kidney_right.nii.gz").unlink()
    found = problems(folders)
    assert len(found) == 2
    assert found[0].startswith("s0011: ") and "no mask file for right kidney" in found[0]


def test_files_of_no_organ_are_listed(folders, capsys):
    save_nifti(folders["prediction"] / CASES[0] / "colon.nii.gz", np.ones((3, 3, 3), np.uint8))
    scored(folders)
    assert "prediction: files ['colon'] belong to no organ" in capsys.readouterr().err
    metrics = files.read_json(folders["truth"].parent / "scores" / "metrics.json")
    assert metrics["other_labels"] == {"truth": [], "prediction": ["colon"]}


def test_overlapping_masks_are_told_and_each_is_scored_whole(folders, capsys):
    path = folders["prediction"] / CASES[0] / "kidney_right.nii.gz"
    liver = mask(CASES[0], "liver", "prediction")
    kidney = mask(CASES[0], "right kidney", "prediction")
    save_nifti(path, (liver | kidney).astype(np.uint8))
    save_nifti(path.with_name("gallbladder.nii.gz"), liver.astype(np.uint8))
    table = scored(folders)
    sizes = table.loc[CASES[0]]["predicted_voxels"]
    assert sizes["liver"] == sizes["gallbladder"] == liver.sum()
    assert sizes["right kidney"] == (liver | kidney).sum()
    warnings = capsys.readouterr().err
    for pair in ("liver and right kidney", "gallbladder and liver", "gallbladder and right kidney"):
        assert f"{pair} share {liver.sum()} voxels; each is scored with them" in warnings


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (np.arange(26 * 30 * 11) % 3, AFFINE, "expected the mask of one organ, 0 and 1, found 0"),
        (np.zeros((5, 5, 5)), AFFINE, "expected the grid of the other organs, found shape 5 x 5 x"),
        (np.zeros((26, 30, 11)), AFFINE @ np.diag([1, 1, 2, 1]), "other organs, found spacing"),
    ],
)
def test_a_mask_that_is_none_or_lies_elsewhere(folders, array, affine, message):
    path = folders["prediction"] / CASES[0] / "kidney_right.nii.gz"
    shape = (26, 30, 11) if array.ndim == 1 else array.shape
    save_nifti(path, array.reshape(shape).astype(np.uint8), affine)
    (problem,) = problems(folders)
    assert message in problem and str(path) in problem


def test_two_files_of_one_organ(folders):
    path = folders["prediction"] / CASES[0] / "kidney_right.nii.gz"
    save_nifti(path.with_name("right-kidney.nii.gz"), np.zeros((26, 30, 11), np.uint8))
    (problem,) = problems(folders)
    assert "several mask files for right kidney (kidney_right, right-kidney)" in problem


def test_names_of_files_or_of_organs(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"labels": {"background": 0, "liver": 1}}))
    assert read_file_names(path) == {"liver": ("liver",)}
    path.write_text(json.dumps({"kidneys": ["kidney_left", "kidney_right"], "liver": "liver"}))
    assert read_file_names(path)["kidneys"] == ("kidney_left", "kidney_right")
    path.write_text(json.dumps({"liver": "liver", "spleen": 1.5}))
    with pytest.raises(UserError, match=r"spleen: expected a label .* found 1\.5"):
        read_file_names(path)


def test_the_command(folders, tmp_path):
    arguments = [part for name, path in folders.items() for part in (f"--{name}", str(path))]
    done = hsam("score", *arguments, "--out", "scores", "--jobs", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "scores" / "metrics.json").is_file()

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.scoring.conventions import CONVENTIONS
from pipeline.scoring.measures import measure
from tests.pipeline.commands.scored import problems, scored
from tests.pipeline.conftest import AFFINE, save_nifti, save_nifti_header
from tests.pipeline.masks import blob
from tests.pipeline.test_cli import hsam, refused

ORGANS = {"liver": 6, "kidneys": [2, 3], "spleen": 9}
SHAPE = (26, 30, 11)  # (x, y, z)


def labels(seed: int) -> np.ndarray:
    """(x, y, z) with the labels 2, 3, 6 and 7; no spleen."""
    volume = np.zeros(SHAPE, np.uint8)
    for label in (2, 3, 6, 7):
        volume[blob(seed + label).transpose()] = label
    return volume


@pytest.fixture
def folders(tmp_path) -> dict[str, Path]:
    """Two cases of truth and prediction, and the labels' description."""
    for seed, case in enumerate(("a", "b")):
        save_nifti(tmp_path / "truth" / f"{case}.nii.gz", labels(seed))
        save_nifti(tmp_path / "prediction" / f"{case}.nii.gz", labels(seed + 50))
    (tmp_path / "labels.json").write_text(json.dumps(ORGANS))
    names = ("truth", "prediction")
    return {name: tmp_path / name for name in names} | {"labels": tmp_path / "labels.json"}


def test_scores_are_those_of_the_masks(folders):
    table = scored(folders)
    spacing = np.linalg.norm(AFFINE[:3, :3], axis=0)
    for seed, case in enumerate(("a", "b")):
        for organ, values in (("liver", [6]), ("kidneys", [2, 3])):
            masks = (np.isin(labels(s), values) for s in (seed, seed + 50))
            expected = measure(*masks, spacing)
            row = table.loc[case, organ]
            assert row["hd95_mm"] == pytest.approx(expected.scores["hd95_mm"])
            assert row["assd_mm"] == pytest.approx(expected.scores["assd_mm"])
            assert row["nsd_2mm"] == pytest.approx(expected.scores["nsd_2mm"])
            difference = expected.predicted_voxels - expected.truth_voxels
            assert row["volume_difference_ml"] == pytest.approx(difference * 0.8 * 0.7 * 3 / 1000)
    assert table.xs("spleen", level="organ")["dice"].isna().all()  # in neither: left out


def test_labels_without_a_place_and_in_any_byte_order(folders, capsys):
    expected = scored(folders)
    for case in ("a", "b"):
        for side, seed in (("truth", 0), ("prediction", 50)):
            path = folders[side] / f"{case}.nii.gz"
            stored = labels(seed + (case == "b")).astype(np.int16)
            image = nib.Nifti1Image(
                stored, AFFINE, nib.Nifti1Header(endianness=">"), dtype=np.int16
            )
            path.write_bytes(gzip.compress(image.to_bytes()))
    pd.testing.assert_frame_equal(scored(folders), expected)
    assert "warning: " not in capsys.readouterr().err
    for side, seed in (("truth", 0), ("prediction", 50)):
        save_nifti_header(folders[side] / "a.nii.gz", labels(seed), qform_code=0, sform_code=0)
    scored(folders)
    printed = " ".join(capsys.readouterr().err.split())
    for side in ("truth", "prediction"):
        assert f"{folders[side] / 'a.nii.gz'}: qform and sform codes are 0" in printed


def test_what_is_written(folders, capsys):
    scored(folders, convention="strict")
    out = folders["truth"].parent / "scores"
    names = ["cases.csv", "cases.parquet", "metrics.json", "organs.csv", "organs.parquet"]
    assert sorted(path.name for path in out.iterdir()) == names
    metrics = files.read_json(out / "metrics.json")
    assert (metrics["cases"], metrics["convention"]) == (2, "strict")
    assert list(metrics["conventions"]) == list(CONVENTIONS)
    assert metrics["pairs"] == {"all": 6, "missed": 0, "invented": 0, "absent": 2}
    assert metrics["other_labels"] == {"truth": [7], "prediction": [7]}
    printed = capsys.readouterr()
    assert f"{metrics['mean_dice']:.3f}" in printed.out and "2 of 6 pairs" in printed.out
    sentence = "(in 2 of 2 cases): the tolerance is below the voxel size (sides of 0.7 to 3 mm)"
    assert sentence in printed.out
    assert "labels [7] belong to no organ" in printed.err


@pytest.mark.parametrize("suffix", [".nii", ".mha", ".mhd", ".nrrd"])
def test_formats_may_differ(folders, suffix):
    expected = scored(folders)
    for path in sorted(folders["prediction"].iterdir()):
        image = sitk.ReadImage(str(path))
        sitk.WriteImage(image, str(path).replace(".nii.gz", suffix))
        path.unlink()
    pd.testing.assert_frame_equal(scored(folders), expected)


@pytest.mark.parametrize("dtype", ["int64", "float32", "uint16", "int16"])
def test_types_of_labels_may_differ(folders, dtype):
    expected = scored(folders)
    for path in folders["prediction"].iterdir():
        array = np.asarray(nib.load(path).dataobj).astype(dtype)
        nib.Nifti1Image(array, AFFINE, dtype=dtype).to_filename(path)
    pd.testing.assert_frame_equal(scored(folders), expected)


def test_labels_of_the_prediction_may_be_others(folders):
    expected = scored(folders)
    for path in folders["prediction"].iterdir():
        old = np.asarray(nib.load(path).dataobj)
        save_nifti(path, np.select([old == 6, (old == 2) | (old == 3)], [1, 2]).astype(np.uint8))
    model = folders["labels"].parent / "model.json"
    model.write_text(json.dumps({"class_names": ["liver", "kidneys", "spleen"]}))
    pd.testing.assert_frame_equal(scored(folders, prediction_labels=model), expected)
    model.write_text(json.dumps({"class_names": ["liver"]}))
    with pytest.raises(UserError, match="expected the organs of"):
        scored(folders, prediction_labels=model)


def test_two_processes_give_the_same(folders):
    pd.testing.assert_frame_equal(scored(folders, jobs=2), scored(folders))


def test_missing_and_extra_cases_are_all_listed(folders):
    (folders["prediction"] / "a.nii.gz").unlink()
    for case in ("c", "d"):
        save_nifti(folders["prediction"] / f"{case}.nii.gz", labels(0))
    missing, extra = problems(folders)
    assert "no prediction for 1 of 2 cases: a;" in missing
    assert "no truth for 2 of 3 cases: c, d;" in extra
    assert list(scored(folders, cases=["b"]).index.levels[0]) == ["b"]
    with pytest.raises(UserError, match="no case x"):
        scored(folders, cases=["x"])


def test_a_channel_in_the_name_is_no_part_of_the_case(folders):
    expected = scored(folders)
    for path in sorted(folders["prediction"].iterdir()):
        path.rename(path.with_name(path.name.replace(".nii", "_0000.nii")))
    pd.testing.assert_frame_equal(scored(folders), expected)


def test_names_and_folders_by_a_pattern(folders):
    expected = scored(folders)
    for path in sorted(folders["prediction"].glob("*.nii.gz")):
        case = path.name.removesuffix(".nii.gz")
        (path.parent / case).mkdir()
        path.rename(path.parent / case / f"{case}_seg.nii.gz")
    found = scored(folders, names=("{case}", "{case}/{case}_seg"))
    pd.testing.assert_frame_equal(found, expected)
    with pytest.raises(UserError, match="of the name label{case}"):
        scored(folders, names=("label{case}", "{case}"))


def test_a_case_in_two_formats(folders):
    path = folders["truth"] / "a.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(path)), str(path.with_name("a.mha")))
    (problem,) = problems(folders)
    assert "case a is there more than once (a.mha, a.nii.gz)" in problem


@pytest.mark.parametrize(
    "change, expected",
    [
        (
            AFFINE @ np.diag([1, 1, 1.1, 1]),
            "spacing 0.8 x 0.7 x 3.3 mm instead of 0.8 x 0.7 x 3 mm",
        ),
        (AFFINE + np.array([[0, 0, 0, 3.0], [0] * 4, [0, 0, 0, 4.0], [0] * 4]), "origin 5 mm away"),
        (np.diag([1, -1, 1, 1]) @ AFFINE, "y by 180°"),
    ],
    ids=["spacing", "origin", "direction"],
)
def test_grids_that_differ_are_refused_with_how(folders, change, expected):
    save_nifti(folders["prediction"] / "b.nii.gz", labels(51), change)
    (problem,) = problems(folders)
    assert problem.startswith("b: ") and expected in problem and "voxels up to" in problem


def test_a_rounded_header_is_the_same_grid(folders):
    expected = scored(folders)
    rounded = AFFINE.copy()
    rounded[:3] += 1e-4  # in voxel sides and origin, mm
    save_nifti(folders["prediction"] / "b.nii.gz", labels(51), rounded)
    pd.testing.assert_frame_equal(scored(folders), expected)


def test_problems_of_all_cases_are_gathered(folders):
    save_nifti(folders["prediction"] / "a.nii.gz", labels(50)[:-1])
    path = folders["prediction"] / "b.nii.gz"
    path.write_bytes(path.read_bytes()[:-200])
    shape, torn = problems(folders)
    assert "shape 25 x 30 x 11 instead of 26 x 30 x 11" in shape
    assert "b.nii.gz: can't be read, damaged or truncated?" in torn


@pytest.mark.parametrize(
    "value, expected",
    [(0.5, "expected whole numbers as labels, found 0.5"), (np.nan, "found nan"), (-1, "-1 to 7")],
)
def test_values_that_are_no_labels(folders, value, expected):
    array = labels(50).astype(np.float32)
    array[0, 0, 0] = value
    save_nifti(folders["prediction"] / "a.nii.gz", array)
    (problem,) = problems(folders)
    assert expected in problem and problem.startswith("a: ")


def test_the_command(folders, tmp_path):
    arguments = [part for name, path in folders.items() for part in (f"--{name}", str(path))]
    done = hsam("score", *arguments, "--out", "scores", "--convention", "nnunet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert files.read_json(tmp_path / "scores" / "metrics.json")["convention"] == "nnunet"
    (folders["truth"] / "a.nii.gz").unlink()
    assert "no truth for" in refused(hsam("score", *arguments, "--out", "other", cwd=tmp_path))
    assert not (tmp_path / "other").exists()

import csv
import gzip
import re
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest

from pipeline import datasets
from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.datasets import check
from pipeline.datasets.synapse import image_path, label_path
from tests.pipeline.conftest import (
    AFFINE,
    make_params,
    save_nifti,
    save_nifti_header,
    tiny_image,
    tiny_label,
)

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def of_parts(params):
    dataset = params.dataset
    entry = datasets.get(dataset)
    return entry.find(dataset), (entry.labels(dataset), entry.intensity(dataset))


def with_value(array, value):
    changed = array.astype(np.float32)
    changed[3, 4, 5] = value
    return changed


def shifted(millimetres):
    affine = AFFINE.copy()
    affine[0, 3] += millimetres
    return affine


@pytest.mark.parametrize(
    ("which", "array", "affine", "message"),
    [
        (image_path, with_value(tiny_image(), np.nan), AFFINE, "found 1 NaN and 0 infinite"),
        (image_path, with_value(tiny_image(), np.inf), AFFINE, "found 0 NaN and 1 infinite"),
        (
            image_path,
            np.full((10, 20, 30), 7, "i2"),
            AFFINE,
            "the image is empty: every voxel is 7",
        ),
        (image_path, tiny_image((10, 20, 30, 2)), AFFINE, "found 4 dimensions"),
        (
            label_path,
            tiny_label((10, 20, 29)),
            AFFINE,
            "found shape 10 x 20 x 29 instead",
        ),
        (label_path, tiny_label(), shifted(0.2), "voxels up to 0.2 mm from their place"),
        (label_path, tiny_label()[::-1], AFFINE @ np.diag([-1, 1, 1, 1]), "RAS instead of LAS"),
        (label_path, with_value(tiny_label(), 2.5), AFFINE, "expected whole numbers .* 2.5"),
        (label_path, tiny_label() * np.float32(0.99999994), AFFINE, "found 0.99999994, 1.9999999,"),
        (label_path, with_value(tiny_label(), np.nan), AFFINE, "expected whole numbers .* nan"),
        (label_path, with_value(tiny_label(), 14), AFFINE, "labels 14 are not in the map"),
        (label_path, with_value(tiny_label(), -1), AFFINE, "labels -1 are not in the map"),
    ],
)
def test_one_bad_volume(synapse_params, synapse_root, which, array, affine, message):
    path = save_nifti(which(synapse_root, "img0005"), array, affine)
    cases, rules = of_parts(synapse_params())
    problems, fingerprint = check.check_case(cases["img0005"], *rules)
    assert fingerprint is None
    (problem,) = problems
    assert problem.startswith(f"img0005: {path}: ")
    assert "\n" not in problem
    assert re.search(message, problem)
    assert check.check_case(cases["img0006"], *rules)[0] == []


def test_small_differences_of_geometry_are_allowed(synapse_params, synapse_root):
    save_nifti(label_path(synapse_root, "img0005"), tiny_label(), shifted(0.05))
    cases, rules = of_parts(synapse_params())
    assert check.check_case(cases["img0005"], *rules)[0] == []


def test_fingerprint(synapse_params):
    cases, rules = of_parts(synapse_params())
    problems, found = check.check_case(cases["img0001"], *rules)
    assert not problems
    assert found["shape"] == [10, 20, 30]
    assert found["spacing_mm"] == [0.8, 0.7, 3.0]
    assert found["orientation"] == "LAS"
    assert found["type"] == "int16"
    assert (found["minimum"], found["maximum"]) == (tiny_image().min(), tiny_image().max())
    assert found["percentiles"]["50%"] == np.median(tiny_image())
    assert found["voxels"]["liver"] == (tiny_label() == 6).sum()
    assert list(found["voxels"]) == list(rules[0].names)
    assert found["warnings"] == []


def test_all_problems_of_all_cases_at_once(synapse_params, synapse_root):
    label_path(synapse_root, "img0001").unlink()
    image = image_path(synapse_root, "img0005")
    image.write_bytes(image.read_bytes()[:-3000])
    save_nifti(label_path(synapse_root, "img0005"), with_value(tiny_label(), 99))
    save_nifti(image_path(synapse_root, "img 7"), tiny_image())
    report = check.check_data_set(synapse_params())
    text = "\n".join(report.problems)
    assert len(report.problems) == 4
    assert "case id 'img 7'" in text
    assert "img0001.nii.gz: the image has no label volume" in text
    assert "img0005.nii.gz: can't be read" in text
    assert "labels 99 are not in the map" in text
    assert [found["case"] for found in report.fingerprints] == ["img0006"]


def test_label_without_image(synapse_params, synapse_root):
    image_path(synapse_root, "img0006").unlink()
    (problem,) = check.check_data_set(synapse_params()).problems
    assert "img0006.nii.gz: there is no such file" in problem


def test_report_for_people(synapse_params, capsys, monkeypatch):
    report = check.check_data_set(synapse_params())
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    report.print()
    printed = ANSI.sub("", capsys.readouterr().out)
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80
    rows = [line.split() for line in printed.splitlines()]
    low, middle, high = (f"{f(tiny_image()):.4g}" for f in (np.min, np.median, np.max))
    assert ["img0001", "10x20x30", "0.8x0.7x3", "LAS", low, middle, high] in rows
    liver = str((tiny_label() == 6).sum())
    assert ["liver", "3", liver, liver, liver] in rows
    assert "synapse: 3 cases, no problems" in printed


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_the_whole_report_goes_into_a_file(synapse_params, synapse_root, tmp_path, capsys, ending):
    save_nifti(label_path(synapse_root, "img0005"), with_value(tiny_label(), 99))
    path = tmp_path / f"report.{ending}"
    with pytest.raises(UserError, match="labels 99"):
        check.run(synapse_params(), out=path)
    if ending == "json":
        found = files.read_json(path)
        assert found["cases"] == check.check_data_set(synapse_params()).fingerprints
        assert "labels 99" in found["problems"][0]
        return
    rows = list(csv.DictReader(path.open()))
    assert [row["case"] for row in rows] == ["img0001", "img0006"]
    assert rows[0]["shape"] == "10 x 20 x 30"
    assert rows[0]["liver"] == str((tiny_label() == 6).sum())


def test_a_file_of_another_kind_is_refused_before_the_check(synapse_params, capsys):
    with pytest.raises(UserError, match=r"expected a file that ends in \.csv or \.json"):
        check.run(synapse_params(), out=Path("report.xlsx"))
    assert capsys.readouterr().out == ""


def test_no_name_of_a_patient_is_reported(synapse_params, synapse_root, capsys):
    path = image_path(synapse_root, "img0001")
    image = nib.Nifti1Image(tiny_image(), AFFINE)
    image.header["descrip"] = b"DOE^JANE"
    image.header["db_name"] = b"DOE^JANE"
    nib.save(image, path)
    report = check.check_data_set(synapse_params())
    report.print()
    assert "DOE" not in repr(report) + capsys.readouterr().out


def test_missing_root_is_one_problem(tmp_path):
    params = make_params(dataset={"name": "nnunet", "root": str(tmp_path / "none")})
    report = check.check_data_set(params)
    assert not report.fingerprints
    assert "there is no such folder" in report.problems[0]


def test_hdf5_without_label(tmp_path):
    (tmp_path / "AAA").mkdir()
    with h5py.File(tmp_path / "AAA" / "mri_norm2.h5", "w") as file:
        file["image"] = tiny_image().astype(np.float32)
    report = check.check_data_set(make_params(dataset={"name": "la", "root": str(tmp_path)}))
    assert "expected an HDF5 data set 'label', found image" in report.problems[0]


def test_jobs_do_not_change_the_report(synapse_params, synapse_root):
    save_nifti(label_path(synapse_root, "img0005"), with_value(tiny_label(), 99))
    one = check.check_data_set(synapse_params(), jobs=1)
    assert check.check_data_set(synapse_params(), jobs=2) == one


def test_warnings_of_many_cases_are_one_sentence(synapse_params, synapse_root, tmp_path, capsys):
    for case in ("img0001", "img0006"):
        for path, array in (
            (image_path(synapse_root, case), tiny_image()),
            (label_path(synapse_root, case), tiny_label()),
        ):
            save_nifti_header(path, array, qform_code=0, sform_code=0)
    for ending in ("csv", "json"):
        check.run(synapse_params(), out=tmp_path / f"report.{ending}")
    printed = " ".join(capsys.readouterr().out.split())
    sentence = "image and label: qform and sform codes are 0: orientation and place are a guess"
    assert f"warning: img0001, img0006: {sentence} (LAS)" in printed
    assert "3 cases, no problems, 1 warnings" in printed
    found = files.read_json(tmp_path / "report.json")["cases"]
    assert [len(case["warnings"]) for case in found] == [1, 0, 1]
    rows = list(csv.DictReader((tmp_path / "report.csv").open()))
    assert rows[0]["warnings"].startswith(sentence) and rows[1]["warnings"] == ""


def test_a_label_without_any_organ_is_a_warning(synapse_params, synapse_root):
    save_nifti(label_path(synapse_root, "img0005"), tiny_label() * 0)
    report = check.check_data_set(synapse_params())
    assert report.warnings == ["img0005: the label volume shows no organ of the map."]
    assert report.problems == []


def test_an_image_outside_its_window_is_a_warning(synapse_params, synapse_root):
    save_nifti(image_path(synapse_root, "img0005"), np.minimum(tiny_image(), -200))
    (warning,) = check.check_data_set(synapse_params()).warnings
    assert warning.startswith("img0005: image: every voxel is outside the window [-125, 275]")
    other = {"prepare": {"intensity": {"kind": "window", "low": -900.0, "high": 275.0}}}
    assert check.check_data_set(synapse_params(**other)).warnings == []


@pytest.mark.parametrize("kind", ["i2", "u2", "f4", "f8"])
def test_big_endian_files_give_the_report_of_little_endian_ones(synapse_params, synapse_root, kind):
    expected = check.check_data_set(synapse_params())
    for path, array in (
        (image_path(synapse_root, "img0005"), tiny_image()),
        (label_path(synapse_root, "img0005"), tiny_label()),
    ):
        stored = array.astype("i2" if array.min() < 0 else kind)
        header = nib.Nifti1Header(endianness=">")
        image = nib.Nifti1Image(stored, AFFINE, header, dtype=stored.dtype)
        path.write_bytes(gzip.compress(image.to_bytes()))
        assert nib.load(path).header.endianness == ">"
    assert check.check_data_set(synapse_params()) == expected

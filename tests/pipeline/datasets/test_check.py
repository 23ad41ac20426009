import re

import h5py
import nibabel as nib
import numpy as np
import pytest

from pipeline import datasets
from pipeline.datasets import check
from pipeline.datasets.synapse import image_path, label_path
from tests.pipeline.conftest import AFFINE, make_params, save_nifti, tiny_image, tiny_label


def of_parts(params):
    dataset = params.dataset
    entry = datasets.get(dataset)
    return entry.find(dataset), entry.labels(dataset)


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
        (label_path, with_value(tiny_label(), np.nan), AFFINE, "expected whole numbers .* nan"),
        (label_path, with_value(tiny_label(), 14), AFFINE, "labels 14 are not in the map"),
        (label_path, with_value(tiny_label(), -1), AFFINE, "labels -1 are not in the map"),
    ],
)
def test_one_bad_volume(synapse_params, synapse_root, which, array, affine, message):
    path = save_nifti(which(synapse_root, "img0005"), array, affine)
    cases, labels = of_parts(synapse_params())
    problems, fingerprint = check.check_case(cases["img0005"], labels)
    assert fingerprint is None
    (problem,) = problems
    assert problem.startswith(f"img0005: {path}: ")
    assert "\n" not in problem
    assert re.search(message, problem)
    assert check.check_case(cases["img0006"], labels)[0] == []


def test_small_differences_of_geometry_are_allowed(synapse_params, synapse_root):
    save_nifti(label_path(synapse_root, "img0005"), tiny_label(), shifted(0.05))
    cases, labels = of_parts(synapse_params())
    assert check.check_case(cases["img0005"], labels)[0] == []


def test_fingerprint(synapse_params):
    cases, labels = of_parts(synapse_params())
    problems, found = check.check_case(cases["img0001"], labels)
    assert not problems
    assert found["shape"] == [10, 20, 30]
    assert found["spacing_mm"] == [0.8, 0.7, 3.0]
    assert found["orientation"] == "LAS"
    assert found["type"] == "int16"
    assert (found["minimum"], found["maximum"]) == (tiny_image().min(), tiny_image().max())
    assert found["percentiles"]["50%"] == np.median(tiny_image())
    assert found["voxels"]["liver"] == (tiny_label() == 6).sum()
    assert list(found["voxels"]) == list(labels.names)


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


def test_report_for_people(synapse_params, capsys):
    report = check.check_data_set(synapse_params())
    assert report.rows()[0]["shape"] == "10 x 20 x 30"
    report.print()
    printed = capsys.readouterr().out
    assert "pancreas" in printed
    assert "synapse: 3 cases, no problems" in printed


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

import json

import pytest

from pipeline import datasets
from pipeline.core.errors import UserError
from tests.pipeline.conftest import make_params, save_nifti, tiny_image, tiny_label

DESCRIPTION = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "liver": 5, "spleen": 1, "kidneys": [2, 3]},
    "file_ending": ".nii",
}


def write(root, description, cases=("b_02", "a"), ending=".nii"):
    for case in cases:
        save_nifti(root / "imagesTr" / f"{case}_0000{ending}", tiny_image())
        save_nifti(root / "labelsTr" / f"{case}{ending}", tiny_label() % 2)
    (root / "dataset.json").write_text(json.dumps(description))
    return make_params(dataset={"name": "nnunet", "root": str(root)}).dataset


def test_cases_labels_and_rule(tmp_path):
    dataset = write(tmp_path, DESCRIPTION)
    entry = datasets.get(dataset)
    assert list(entry.find(dataset)) == ["a", "b_02"]
    organs = entry.labels(dataset).organs
    assert list(organs.items()) == [("spleen", (1,)), ("kidneys", (2, 3)), ("liver", (5,))]
    assert entry.intensity(dataset).kind == "window"
    assert entry.canonical(dataset).role("a") is None


def test_first_version_of_the_format(tmp_path):
    first = {"modality": {"0": "MRI"}, "labels": {"0": "background", "2": "tumour", "1": "organ"}}
    dataset = write(tmp_path, first, ending=".nii.gz")
    entry = datasets.get(dataset)
    assert list(entry.find(dataset)) == ["a", "b_02"]
    assert entry.labels(dataset).names == ("organ", "tumour")
    assert entry.intensity(dataset).kind == "percentile"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_names": {"0": "T1", "1": "T2"}}, r"has 2 channels \(T1, T2\); H-SAM takes one"),
        ({"channel_names": {}}, "expected channel_names"),
        ({"file_ending": ".png"}, "file_ending '.png' can't be read"),
        ({"labels": [1, 2]}, "expected labels, a mapping"),
        ({"labels": {"whole": [1, 2], "core": [2]}}, "region core overlaps whole"),
        ({"labels": {"liver": 1, "ignore": 2}}, "labels.ignore marks voxels without truth"),
        ({"labels": {"liver": "one"}}, "labels.liver: expected a number above 0"),
        ({"labels": {"background": 0}}, "names no organ besides the background"),
        ({"dataset": {"a/../b": {"images": ["x.nii"], "label": "y.nii"}}}, "case id 'a/../b'"),
        ({"dataset": {"a": {"images": ["x.nii", "z.nii"]}}}, "dataset.a: expected one image"),
    ],
)
def test_what_is_refused_and_why(tmp_path, change, message):
    dataset = write(tmp_path, {**DESCRIPTION, **change})
    entry = datasets.get(dataset)
    with pytest.raises(UserError, match=message):
        entry.find(dataset)
        entry.labels(dataset)


def test_second_channel_on_disk(tmp_path):
    dataset = write(tmp_path, DESCRIPTION)
    save_nifti(tmp_path / "imagesTr" / "a_0001.nii", tiny_image())
    with pytest.raises(UserError, match="case a has 2 channels"):
        datasets.get(dataset).find(dataset)


def test_listed_cases(tmp_path):
    listed = {"x1": {"images": ["./imagesTr/a_0000.nii"], "label": "./labelsTr/a.nii"}}
    dataset = write(tmp_path, {**DESCRIPTION, "dataset": listed})
    raw = datasets.get(dataset).find(dataset)["x1"]
    assert raw.image == tmp_path / "imagesTr" / "a_0000.nii"


def test_no_description(tmp_path):
    dataset = write(tmp_path, DESCRIPTION)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(UserError, match=r"dataset\.json: there is no such file"):
        datasets.get(dataset).find(dataset)

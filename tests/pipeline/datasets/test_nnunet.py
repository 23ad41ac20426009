import json

import pytest

from pipeline import datasets
from pipeline.core.errors import UserError
from pipeline.datasets.recognise import recognise
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
        (
            {"channel_names": {"0": "T1", "1": "T2"}},
            r"has 2 channels \(T1, T2\) and none is chosen",
        ),
        ({"channel_names": {"0": "T1", "2": "T2"}}, r"expected the numbers '0', '1', ... of"),
        ({"channel_names": {}}, "expected channel_names"),
        ({"file_ending": ".png"}, "file_ending '.png' can't be read"),
        ({"labels": [1, 2]}, "expected labels, a mapping"),
        ({"labels": {"whole": [1, 2], "core": [2]}}, "region core overlaps whole"),
        ({"labels": {"liver": 1, "ignore": 2}}, "labels.ignore marks voxels without truth"),
        ({"labels": {"liver": "one"}}, "labels.liver: expected a number above 0"),
        ({"labels": {"background": 0}}, "names no organ besides the background"),
        ({"dataset": {"a/../b": {"images": ["x.nii"], "label": "y.nii"}}}, "case id 'a/../b'"),
        ({"dataset": {"a": {"images": ["x.nii", "z.nii"]}}}, "dataset.a: expected one image"),
        ({"dataset": {"a": {"images": [7], "label": "y.nii"}}}, "dataset.a: expected one image"),
        ({"dataset": {"a": {"images": ["x.nii"], "label": 7}}}, "path of its label, found 7"),
        ({"dataset": {"a": {"images": ["x.nii"], "label": ["y"]}}}, "path of its label, found"),
        ({"dataset": [1]}, "expected dataset to map case ids"),
        ({"dataset": {"a": 7}}, "dataset.a: expected one image, found None"),
        ({"channel_names": "CT"}, "expected channel_names, a mapping"),
        ({"channel_names": {"0": 7}}, "channel_names: expected names such as 'CT'"),
        ({"labels": {"liver": True}}, "labels.liver: expected a number above 0"),
        ({"labels": {"liver": False}}, "labels.liver: expected a number above 0"),
        ({"labels": {"liver": {"a": 1}}}, "labels.liver: expected a number above 0"),
        ({"labels": {"liver": [1, None]}}, "labels.liver: expected a number above 0"),
        ({"labels": {"²": "liver"}}, "labels.²: expected a number above 0"),
        ({"file_ending": [".nii"]}, "can't be read; expected one of"),
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


@pytest.mark.parametrize("content", ["7", "[]", "null", "[" * 100_000, "{"])
def test_a_description_that_is_no_mapping(tmp_path, content):
    dataset = write(tmp_path, DESCRIPTION)
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(UserError, match="expected a mapping|not valid JSON"):
        datasets.get(dataset).find(dataset)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_description_from_an_editor_on_windows(tmp_path, encoding):
    dataset = write(tmp_path, DESCRIPTION)
    expected = datasets.get(dataset).labels(dataset)
    (tmp_path / "dataset.json").write_text(json.dumps(DESCRIPTION), encoding=encoding)
    assert datasets.get(dataset).labels(dataset) == expected
    assert list(datasets.get(dataset).find(dataset)) == ["a", "b_02"]


@pytest.mark.parametrize(
    ("folder", "is_named", "renamed", "expected"),
    [
        ("imagesTr", "{}_0000.nii", "{}.nii", "2 images lack the number of their channel"),
        ("labelsTr", "{}.nii", "{}_0000.nii", "2 labels have the number of a channel"),
    ],
)
def test_numbers_of_channels_in_the_wrong_place(tmp_path, folder, is_named, renamed, expected):
    dataset = write(tmp_path, DESCRIPTION)
    for case in ("a", "b_02"):
        path = tmp_path / folder / is_named.format(case)
        path.rename(path.with_name(renamed.format(case)))
    with pytest.raises(UserError) as caught:
        datasets.get(dataset).find(dataset)
    (problem,) = caught.value.problems
    assert f"{expected} ({renamed.format('a')}, {renamed.format('b_02')})" in problem
    assert f"rename {renamed.format('a')} to {is_named.format('a')}" in problem


def test_a_case_id_that_is_too_long_for_the_names_of_files(tmp_path):
    dataset = write(tmp_path, DESCRIPTION, cases=("a", "x" * 200))
    assert list(datasets.get(dataset).find(dataset)) == ["a", "x" * 200]
    dataset = write(tmp_path, DESCRIPTION, cases=("x" * 238,))
    with pytest.raises(UserError, match="x... has 238 characters; expected at most 200"):
        datasets.get(dataset).find(dataset)


def test_the_decathlons_list_of_images_without_a_channel(tmp_path):
    about = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "organ"}}
    listed = [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"} for c in "ab"]
    dataset = write(tmp_path, {**about, "training": listed}, cases="ab", ending=".nii.gz")
    # nnU-Net's first version lists the same names, of files that have the channel
    assert datasets.get(dataset).find(dataset)["a"].image.name == "a_0000.nii.gz"
    for case in "ab":
        image = tmp_path / "imagesTr" / f"{case}_0000.nii.gz"
        image.rename(image.with_name(f"{case}.nii.gz"))
    found = datasets.get(dataset).find(dataset)
    assert list(found) == ["a", "b"]
    assert found["b"].image == tmp_path / "imagesTr" / "b.nii.gz"
    assert found["b"].label == tmp_path / "labelsTr" / "b.nii.gz"


def test_labelled_tests_are_the_canonical_split(tmp_path):
    plain = write(tmp_path, DESCRIPTION)
    assert recognise(tmp_path).name == "nnunet"
    tested = plain.model_copy(update={"name": "nnunet_ts"})
    with pytest.raises(UserError, match="there is no label of a test case"):
        datasets.get(tested).find(tested)
    for case in ("t1", "t2"):
        save_nifti(tmp_path / "imagesTs" / f"{case}_0000.nii", tiny_image())
    save_nifti(tmp_path / "labelsTs" / "t1.nii", tiny_label() % 2)
    assert recognise(tmp_path).name == "nnunet_ts"
    entry = datasets.get(tested)
    # an unlabelled test case is none that could be scored
    assert list(entry.find(tested)) == ["a", "b_02", "t1"]
    assert entry.find(tested)["t1"].image == tmp_path / "imagesTs" / "t1_0000.nii"
    split = entry.canonical(tested)
    assert (split.train, split.test) == (("a", "b_02"), ("t1",))
    assert list(datasets.get(plain).find(plain)) == ["a", "b_02"]
    save_nifti(tmp_path / "labelsTs" / "a.nii", tiny_label() % 2)
    with pytest.raises(UserError, match="case id a is there twice"):
        entry.find(tested)


def test_a_folder_that_lacks_its_description_is_known(tmp_path):
    write(tmp_path, DESCRIPTION)
    (tmp_path / "dataset.json").unlink()
    dataset = recognise(tmp_path)
    with pytest.raises(UserError, match=r"dataset\.json: there is no such file"):
        datasets.get(dataset).find(dataset)


def test_people_call_it_by_its_description_else_by_its_folder(tmp_path):
    root = tmp_path / "Dataset101_LA"
    described = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "atrium": 1}}
    dataset = make_params(dataset={"name": "nnunet", "root": str(root)}).dataset
    assert datasets.title(dataset) == "nnunet"  # volumes that are elsewhere
    write(root, described)
    assert datasets.title(dataset) == "Dataset101_LA"
    write(root, described | {"name": "Left atrium"})
    assert datasets.title(dataset) == "Left atrium"


TWO = DESCRIPTION | {"channel_names": {"1": "MR", "0": "CT"}}


def names_of(raw) -> list[str]:
    return [found.path.name for found in raw.channels]


def test_channels_in_the_order_of_the_choice(tmp_path):
    dataset = write(tmp_path, TWO).model_copy(update={"channels": ["MR", 0]})
    entry = datasets.get(dataset)
    raw = entry.find(dataset)["a"]
    assert names_of(raw) == ["a_0001.nii", "a_0000.nii"]
    assert raw.image == tmp_path / "imagesTr" / "a_0001.nii"
    assert [rule.kind for rule in entry.intensity(dataset)] == ["percentile", "window"]
    only = dataset.model_copy(update={"channels": [1]})
    assert entry.find(only)["a"].channels == ()
    assert entry.find(only)["a"].image.name == "a_0001.nii"
    assert entry.intensity(only).kind == "percentile"
    listed = {"x1": {"images": ["p.nii", "q.nii"], "label": "labelsTr/a.nii"}}
    write(tmp_path, TWO | {"dataset": listed})
    assert names_of(entry.find(dataset)["x1"]) == ["q.nii", "p.nii"]


def test_channels_of_test_cases(tmp_path):
    dataset = write(tmp_path, TWO).model_copy(update={"channels": ["CT", "MR"]})
    dataset = dataset.model_copy(update={"name": "nnunet_ts"})
    save_nifti(tmp_path / "labelsTs" / "t.nii", tiny_label() % 2)
    save_nifti(tmp_path / "labelsTs" / "u.nii", tiny_label() % 2)
    save_nifti(tmp_path / "imagesTs" / "u.nii", tiny_image())
    found = datasets.get(dataset).find(dataset)
    assert names_of(found["t"]) == ["t_0000.nii", "t_0001.nii"]
    assert [str(channel) for channel in found["u"].channels] == [
        f"{tmp_path / 'imagesTs' / 'u.nii'}, channel {place}" for place in range(2)
    ]


def test_equal_names_get_their_numbers(tmp_path):
    dataset = write(tmp_path, DESCRIPTION | {"channel_names": {"0": "MR", "1": "MR", "2": "CT"}})
    assert datasets.get(dataset).channels(dataset) == ("MR_0", "MR_1", "CT")

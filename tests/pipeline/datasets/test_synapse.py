import pytest

from pipeline import datasets
from pipeline.core.errors import UserError
from pipeline.datasets import synapse
from tests.pipeline.conftest import save_nifti, tiny_label


def test_cases_and_their_files(synapse_params, synapse_root):
    dataset = synapse_params().dataset
    cases = datasets.get(dataset).find(dataset)
    assert list(cases) == ["img0001", "img0005", "img0006"]
    assert cases["img0005"].files == (
        synapse_root / "Training" / "img" / "img0005.nii.gz",
        synapse_root / "Training" / "label" / "label0005.nii.gz",
    )
    assert datasets.expected_files(dataset) == cases


def test_thirteen_raw_labels_become_eight(synapse_params):
    dataset = synapse_params().dataset
    labels = datasets.get(dataset).labels(dataset)
    raw = tiny_label((14, 1, 1))
    assert labels.apply(raw).ravel().tolist() == [0, 1, 2, 3, 4, 0, 5, 6, 7, 0, 0, 8, 0, 0]
    assert labels.names[4] == "liver"
    assert labels.unknown(range(14)) == []
    assert labels.unknown([3, 14, -1]) == [-1, 14]


def test_canonical_split_of_the_field():
    split = synapse.Synapse().canonical(None)
    assert (len(split.train), len(split.test)) == (18, 12)
    assert not set(split.train) & set(split.test)
    assert split.role("img0008") == "test"
    assert split.role("img0040") == "train"
    assert split.role("img0011") is None


def test_image_without_label_and_label_without_image(synapse_params, synapse_root):
    (synapse_root / "Training" / "label" / "label0005.nii.gz").unlink()
    (synapse_root / "Training" / "img" / "img0006.nii.gz").unlink()
    dataset = synapse_params().dataset
    cases = datasets.get(dataset).find(dataset)
    assert cases["img0005"].label is None
    assert cases["img0006"].image == synapse_root / "Training" / "img" / "img0006.nii.gz"


def test_two_files_for_one_case(synapse_params, synapse_root):
    save_nifti(synapse_root / "Training" / "img" / "img0005.nii", tiny_label())
    dataset = synapse_params().dataset
    with pytest.raises(UserError, match="img0005 has more than one image file"):
        datasets.get(dataset).find(dataset)

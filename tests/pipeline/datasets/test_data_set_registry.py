from typing import get_args

import pytest

from pipeline import datasets
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Dataset
from pipeline.core.registry import DATASETS
from pipeline.datasets.base import CaseList, RawCase
from tests.pipeline.conftest import make_params

NAMES = sorted(DATASETS)


def test_parameters_allow_the_registered_names():
    assert sorted(get_args(Dataset.model_fields["name"].annotation)) == NAMES


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"phantom"}))
def test_missing_root_says_what_belongs_there(tmp_path, name):
    dataset = make_params(dataset={"name": name, "root": str(tmp_path / "none")}).dataset
    with pytest.raises(UserError) as caught:
        datasets.get(dataset).find(dataset)
    text = str(caught.value)
    entry = datasets.named(name)
    assert str(tmp_path / "none") in text
    assert entry.layout in text
    assert entry.source in text


@pytest.mark.parametrize("name", ["synapse", "la", "promise12"])
def test_empty_root(tmp_path, name):
    dataset = make_params(dataset={"name": name, "root": str(tmp_path)}).dataset
    with pytest.raises(UserError, match="no case found there"):
        datasets.get(dataset).find(dataset)


def test_chosen_cases(synapse_params):
    dataset = synapse_params(dataset={"cases": ["img0006", "img0001"]}).dataset
    assert list(datasets.get(dataset).find(dataset)) == ["img0001", "img0006"]
    dataset = synapse_params(dataset={"cases": ["img0006", "img0002", "img0003"]}).dataset
    with pytest.raises(UserError, match="case img0002 .* is not there; found img0001") as caught:
        datasets.get(dataset).find(dataset)
    assert len(caught.value.problems) == 2


def test_label_map_of_the_parameters(synapse_params):
    dataset = synapse_params(dataset={"labels": {"kidneys": [2, 3], "liver": 6}}).dataset
    labels = datasets.get(dataset).labels(dataset)
    assert labels.organs == {"kidneys": (2, 3), "liver": (6,)}
    # the spleen is known and left out, 14 is not BTCV's
    assert labels.unknown([0, 1, 2, 3, 6, 14]) == [14]
    dataset = synapse_params(dataset={"other_labels": "background"}).dataset
    assert datasets.get(dataset).labels(dataset).unknown([14]) == []


def test_bad_label_maps(synapse_params):
    labels = {"liver": 6, "all": [5, 6], "none": [], "air": 0}
    dataset = synapse_params(dataset={"labels": labels}).dataset
    with pytest.raises(UserError) as caught:
        datasets.get(dataset).labels(dataset)
    assert len(caught.value.problems) == 3
    assert "raw label 6 already belongs to liver" in str(caught.value)


@pytest.mark.parametrize("case", ["../up", "a/b", "a\\b", "", ".hidden", "two words", "a\n"])
def test_unusable_case_ids(tmp_path, case):
    found = CaseList()
    found.add(RawCase(case, tmp_path / "a.nii", None))
    assert not found.cases
    assert "case id" in found.problems[0]


def test_ids_that_differ_in_case_only(tmp_path):
    found = CaseList()
    for case in ("Case01", "case01"):
        found.add(RawCase(case, tmp_path / f"{case}.nii", None))
    assert list(found.cases) == ["Case01"]
    assert "is there twice" in found.problems[0]

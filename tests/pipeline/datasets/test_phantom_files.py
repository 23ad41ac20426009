from pathlib import Path

import pytest

from pipeline import datasets
from pipeline.core.errors import UserError
from pipeline.datasets import phantom
from tests.pipeline.conftest import make_params


def test_files_are_known_before_they_exist():
    params = make_params(dataset={"root": "no/where"})
    expected = datasets.expected_files(params.dataset)
    assert len(expected) == params.dataset.phantom.cases == 20
    paths = phantom.paths("no/where", params.dataset.phantom)
    assert [path for raw in expected.values() for path in raw.files] == paths
    assert paths[0] == Path("no/where/Training/img/img0001.nii.gz")


def test_what_is_made_is_what_is_expected(phantom_params):
    dataset = phantom_params.dataset
    assert datasets.get(dataset).find(dataset) == datasets.expected_files(dataset)
    written = {path for path in Path(dataset.root).rglob("*") if path.is_file()}
    assert written == set(phantom.paths(dataset.root, dataset.phantom))


@pytest.mark.parametrize(("count", "test"), [(3, 1), (5, 2), (10, 3), (20, 6)])
def test_last_cases_are_the_test_set(count, test):
    dataset = make_params(dataset={"phantom": {"cases": count}}).dataset
    split = datasets.get(dataset).canonical(dataset)
    assert len(split.test) == test
    assert split.train + split.test == tuple(phantom.cases(count))


def test_missing_volumes_come_with_the_command(tmp_path):
    dataset = make_params(dataset={"root": str(tmp_path)}).dataset
    with pytest.raises(UserError, match=r"and 37 more; `hsam phantom --out .* --cases 20"):
        datasets.get(dataset).find(dataset)


def test_unknown_case():
    dataset = make_params(dataset={"cases": ["img0003", "img0021"]}).dataset
    with pytest.raises(UserError, match="case img0021"):
        datasets.expected_files(dataset)

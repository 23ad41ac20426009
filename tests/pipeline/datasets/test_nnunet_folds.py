import json
from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.datasets import nnunet_folds
from pipeline.datasets.nnunet_folds import FOLDS, PREPROCESSED

CASES = ("a", "b", "c", "d")
TWO = [{"train": ["c", "d"], "val": ["a", "b"]}, {"train": ["a", "b"], "val": ["d"]}]


def saved(folder: Path, content: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FOLDS).write_text(json.dumps(content))
    return folder / FOLDS


def test_it_lies_in_the_folder_or_where_nnunet_keeps_it(tmp_path):
    root = tmp_path / "nnUNet_raw" / "Dataset007_Toy"
    root.mkdir(parents=True)
    assert nnunet_folds.find(root) is None
    assert nnunet_folds.find(Path(tmp_path.anchor)) is None
    beside = saved(tmp_path / PREPROCESSED / root.name, TWO)
    assert nnunet_folds.find(root) == beside.resolve()
    mine = saved(root, TWO)
    assert nnunet_folds.find(root) == mine.resolve()


def test_a_fold_is_scored_on_its_validation_cases(tmp_path):
    assert nnunet_folds.read(saved(tmp_path, TWO), CASES) == (("a", "b"), ("d",))


def test_one_fold_validated_on_what_it_learns_is_no_cross_validation(tmp_path):
    assert nnunet_folds.read(saved(tmp_path, nnunet_folds.content(CASES, ())), CASES) == ()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"train": ["a"], "val": ["b"]}, "expected a list of folds"),
        ([{"train": ["a"]}], "expected a list of folds.*KeyError"),
        ([{"train": ["a"], "val": [1]}], "expected case ids, found"),
        ([{"train": ["a"], "val": ["e"]}], r"names 1 cases that aren't there \(e\)"),
        ([{"train": ["a"], "val": ["b"]}] * 2, "a case in one fold's val"),
        ([{"train": ["a"], "val": []}], "some in each"),
        ([], "some in each"),
    ],
)
def test_what_is_not_such_a_file_is_one_sentence(tmp_path, content, why):
    path = saved(tmp_path, content)
    with pytest.raises(UserError, match=why) as caught:
        nnunet_folds.read(path, CASES)
    assert str(caught.value).startswith(f"{path}: ") and "remove it" in str(caught.value)

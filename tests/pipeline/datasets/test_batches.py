from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.datasets.base import RawCase
from pipeline.datasets.batches import batches, cases_of


def raw_cases(folder: Path, count: int, size: int) -> dict[str, RawCase]:
    """Cases whose images are sparse files of `size` bytes."""
    cases = {}
    for number in range(1, count + 1):
        path = folder / f"img{number:04}.nii"
        with open(path, "wb") as file:
            file.truncate(size)
        cases[path.stem] = RawCase(path.stem, path, None)
    return cases


def test_batches_hold_every_case_once(tmp_path):
    cases = raw_cases(tmp_path, 7, 1)
    found = batches(cases, 3)
    assert list(found) == ["1-3", "4-6", "7-7"]
    assert [raw for batch in found.values() for raw in batch] == list(cases.values())
    for batch, raws in found.items():
        assert cases_of(batch, list(cases)) == [raw.case for raw in raws]


def test_a_case_behind_all_others_changes_the_last_batch_alone(tmp_path):
    before, after = (list(batches(raw_cases(tmp_path, n, 1), 4)) for n in (10, 11))
    assert before[:-1] == after[:-1]


@pytest.mark.parametrize(("size", "expected"), [(1, 256), (60 * 2**20, 16), (2**40, 1)])
def test_small_files_make_large_batches(tmp_path, size, expected):
    (first, *_) = batches(raw_cases(tmp_path, 260, size), None).values()
    assert len(first) == expected


def test_files_that_are_still_to_be_made_count_as_small(tmp_path):
    cases = {name: RawCase(name, tmp_path / name, None) for name in ("a", "b")}
    assert list(batches(cases, None)) == ["1-2"]


@pytest.mark.parametrize("batch", ["3-2", "0-1", "2-4", "x", "1-", "1-2-3"])
def test_what_is_no_batch_is_one_sentence(batch):
    with pytest.raises(UserError, match=f"^--batch {batch}: expected .* 1-3"):
        cases_of(batch, ["a", "b", "c"])

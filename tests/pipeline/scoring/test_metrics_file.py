import pytest

from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.scoring.metrics_file import read_metrics
from tests.pipeline.runs import measured, write_run


@pytest.fixture
def path(tmp_path):
    return write_run(tmp_path, measured(1)) / "metrics.json"


def change(path, *keys, value=None):
    """Put a value in the place of an entry, or remove the entry."""
    content = files.read_json(path)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if value is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    files.write_json(path, content)


def test_scores_are_read_as_they_were_written(path):
    assert read_metrics(path) == files.read_json(path)


@pytest.mark.parametrize("content", ["[]", "null", "{", '{"cases": 1, "cases": 2}', "\0"])
def test_other_content_is_refused(path, content):
    path.write_text(content)
    with pytest.raises(UserError, match=r"metrics\.json: damaged .*; evaluate the run again"):
        read_metrics(path)


@pytest.mark.parametrize(
    "keys, value",
    [
        (("convention",), None),
        (("convention",), "own"),
        (("cases",), 0),
        (("dice",), None),
        (("dice", "liver"), "0.5"),
        (("mean_dice",), "0.5"),
        (("pairs", "missed"), None),
        (("conventions", "strict"), None),
        (("voxel_mm",), None),
    ],
)
def test_entries_that_readers_rely_on(path, keys, value):
    change(path, *keys, value=value)
    with pytest.raises(UserError, match=r"metrics\.json: (damaged|no (convention|dice);)"):
        read_metrics(path)


def test_an_undefined_mean_has_no_entry(path):
    change(path, "mean_dice")
    assert "mean_dice" not in read_metrics(path)


def test_scores_of_no_evaluation(path):
    with pytest.raises(UserError, match="no split, stage, review; evaluate the run again"):
        read_metrics(path, evaluation=True)


def test_no_file(tmp_path):
    with pytest.raises(UserError, match="no such file; run the evaluate stage first"):
        read_metrics(tmp_path / "metrics.json")

import json

import pytest

from pipeline.core.errors import UserError
from pipeline.scoring.organs import read_label_names
from tests.pipeline.conftest import ROOT


def written(tmp_path, value):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(value))
    return path


@pytest.mark.parametrize(
    "value, expected",
    [
        ({"liver": 6, "kidneys": [2, 3]}, {"liver": (6,), "kidneys": (2, 3)}),
        ({"labels": {"background": 0, "liver": 1}, "numTraining": 3}, {"liver": (1,)}),
        (
            {"labels": {"0": "background", "1": "liver", "2": "spleen"}},
            {"liver": (1,), "spleen": (2,)},
        ),
        ({"labels": {"whole": [1, 2], "core": [2]}}, {"whole": (1, 2), "core": (2,)}),
        ({"class_names": ["spleen", "liver"]}, {"spleen": (1,), "liver": (2,)}),
    ],
    ids=["mapping", "nnunet 2", "nnunet 1", "regions", "model.json"],
)
def test_forms(tmp_path, value, expected):
    assert read_label_names(written(tmp_path, value)) == expected


def test_parameters_give_the_data_sets_raw_labels(tmp_path):
    found = read_label_names(ROOT / "workflow" / "presets" / "synapse-5vol.yaml")
    assert (found["liver"], found["pancreas"], len(found)) == ((6,), (11,), 8)
    (tmp_path / "mine.yaml").write_text("train: {epochs: 7}")
    with pytest.raises(UserError, match="mine.yaml: names no data set"):
        read_label_names(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    "value, message",
    [
        ({"liver": "one", "spleen": 0.5, "aorta": -2}, "liver: expected a label"),
        ({"liver": 1, "ignore": 0.5}, "ignore: expected a label"),
        ({"background": 0}, "no organ"),
        ([1, 2], "expected a mapping"),
        ({"liver": 70_000}, "65535"),
        ({"liver": []}, "liver"),
        ({"liver": 1, "spleen": 1}, "liver and spleen have the same labels, 1"),
    ],
)
def test_what_is_no_description(tmp_path, value, message):
    with pytest.raises(UserError, match=message):
        read_label_names(written(tmp_path, value))


def test_every_bad_organ_is_named(tmp_path):
    with pytest.raises(UserError) as error:
        read_label_names(written(tmp_path, {"liver": "one", "spleen": 0.5, "aorta": True}))
    assert len(error.value.problems) == 3


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(UserError, match="torn.json: not valid JSON"):
        read_label_names(tmp_path / "torn.json")
    with pytest.raises(UserError, match="no such file"):
        read_label_names(tmp_path / "none.json")

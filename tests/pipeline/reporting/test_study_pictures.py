"""Figures 6, 7 and 8 for the arms of a study: which slices they show, and the pictures."""

import base64
import zlib
from html import escape

import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.reporting.pictures import read_figure_data
from pipeline.reporting.places import place
from pipeline.reporting.slice_rows import fullest_slices, worst_slice
from pipeline.reporting.study_cases import arm_cases
from pipeline.reporting.study_pictures import galleries, shared_folder
from pipeline.scoring.runs import read_runs
from tests.pipeline.stages.test_evaluate import evaluate_two

KINDS = ("models", "predictions", "stages")


@pytest.fixture(scope="module")
def runs(phantom_params, prepared_phantoms, tmp_path_factory):
    """Arm to the evaluation of an untrained model of two stages, and of one; read only."""
    found = evaluate_two(tmp_path_factory.mktemp("runs"), phantom_params, prepared_phantoms)
    return dict(zip(("one", "two"), found, strict=True))


@pytest.fixture(scope="module")
def drawn(runs, prepared_phantoms):
    found = galleries(KINDS, runs, prepared_phantoms, None)
    return {gallery["kind"]: gallery for gallery in found}


@pytest.fixture(scope="module")
def data(runs, prepared_phantoms):
    return read_figure_data(prepared_phantoms, read_runs(list(runs.values()), list(runs)))


def test_columns_are_those_of_the_paper(drawn):
    assert drawn["models"]["titles"] == ["truth", "image", "truth", "one", "two"]
    assert drawn["predictions"]["titles"] == ["image", "truth", "one", "two"]
    assert drawn["stages"]["titles"][:5] == ["image", "truth", "stage 1", "stage 2", "ensemble"]
    for gallery in drawn.values():
        for row in gallery["rows"]:
            assert len(row["panels"]) == len(gallery["titles"])
            assert all(p["uri"].startswith("data:image/png;base64,") for p in row["panels"])


def test_small_organs_are_framed_on_the_whole_slice_alone(drawn):
    for row in drawn["models"]["rows"]:
        frames = [panel["frame"] for panel in row["panels"]]
        assert frames[0] is not None and set(frames[1:]) == {None}
        assert all(0 <= float(share) <= 100 for share in frames[0])


def test_fullest_slices_are_of_the_truth_alone(data):
    chosen = fullest_slices(data, 4)
    assert [case for case, _ in chosen] == sorted(data.runs[0].case_ids)
    for case, index in chosen:
        shown = (data.counts(case) > 0).sum(1)
        assert shown[index] == shown.max()
        equal = np.flatnonzero(shown == shown.max())
        assert data.counts(case)[index].sum() == data.counts(case)[equal].sum(1).max()
    assert len(fullest_slices(data, 1)) == 1


def test_the_last_row_of_the_stages_is_the_worst(drawn, data):
    case, index = worst_slice(data, data.runs[1])
    rows = drawn["stages"]["rows"]
    assert rows[-1]["name"] == f"{case}, slice {index}"
    means = data.runs[1].cases.groupby("case")["dice"].mean()
    assert means[case] == means.min()
    assert len(rows) == len(fullest_slices(data, 4)) + 1


def test_a_study_without_two_stages_has_no_figure_of_them(runs, prepared_phantoms):
    found = galleries(KINDS, {"one": runs["one"]}, prepared_phantoms, "one")
    assert [gallery["kind"] for gallery in found] == ["models", "predictions"]


def test_the_same_runs_give_the_same_pictures(runs, prepared_phantoms, drawn):
    again = galleries(KINDS, runs, prepared_phantoms, None)
    assert again == list(drawn.values())


def test_every_case_has_the_labels_of_all_arms(runs, prepared_phantoms, data):
    shown = arm_cases(runs, prepared_phantoms, 20, None)
    means = [run.cases.groupby("case")["dice"].mean() for run in data.runs]
    assert [row["means"] for row in shown["rows"]] == [
        [pytest.approx(found[row["case"]]) for found in means] for row in shown["rows"]
    ]
    averages = [np.mean(row["means"]) for row in shown["rows"]]
    assert averages == sorted(averages)
    about, case = shown["browser"]["about"], shown["browser"]["cases"][0]
    assert [model["name"] for model in about["models"]] == ["one", "two"]
    assert case["layers"] == ["truth", *(model["layer"] for model in about["models"])]
    for number, run in enumerate(data.runs):
        item = case["slices"][case["worst"]]
        expected = data.prediction(run, case["case"], item["index"])
        packed = np.frombuffer(zlib.decompress(base64.b64decode(item["labels"])), "u1")
        found = np.array(item["combinations"])[packed, number + 1].reshape(expected.shape)
        np.testing.assert_array_equal(found, expected)
        assert case["dice"][number] == [
            None if np.isnan(value) else pytest.approx(value, abs=1e-4)
            for value in run.values([case["case"]], data.organs)[0, :, 0]
        ]
    assert "one Dice" in shown["browser"]["still"]["caption"]
    assert shown["differences"] is None


def test_dots_lead_to_their_case(runs, prepared_phantoms, data):
    shown = arm_cases(runs, prepared_phantoms, 20, "one")
    one, two = (run.cases.groupby("case")["dice"].mean() for run in data.runs)
    for case in one.index:
        for arm, found in (("one", one), ("two", two)):
            address = escape(place(case, model=arm, beside="none"))
            words = f"{case}, {arm}: Dice {found[case]:.3f}"
            assert f'<a xlink:href="{address}"><title>{words}</title>' in shown["dots"]
        address = escape(place(case, model="two", beside="one"))
        words = f"{case}: two minus one {two[case] - one[case]:+.3f}"
        assert f'<a xlink:href="{address}"><title>{words}</title>' in shown["differences"]
    assert shown["differences"].count("<a xlink") == len(one)


def test_rows_of_pictures_have_their_place_in_the_case_browser(drawn):
    for gallery in drawn.values():
        for row in gallery["rows"]:
            case, index = row["name"].split(", slice ")
            assert row["place"] == place(case, slice=int(index))


def test_arms_on_other_volumes_are_not_side_by_side(tmp_path):
    assert shared_folder([tmp_path, tmp_path]) == tmp_path
    with pytest.raises(UserError, match="prepared differently"):
        shared_folder([tmp_path, tmp_path / "other"])

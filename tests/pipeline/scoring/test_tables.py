import io
import math

import numpy as np
import pandas as pd
import pytest

from pipeline.scoring import tables
from pipeline.scoring.conventions import CONVENTIONS
from pipeline.scoring.measures import Measures, measure
from pipeline.scoring.scores import SCORES
from tests.pipeline.masks import BOX, EMPTY, SHIFTED, SPACING

ORGANS = ["liver", "spleen", "aorta"]
MASKS = {
    "a": {"liver": (BOX, SHIFTED), "spleen": (EMPTY, EMPTY), "aorta": (EMPTY, EMPTY)},
    "b": {"liver": (BOX, EMPTY), "spleen": (EMPTY, BOX), "aorta": (EMPTY, EMPTY)},
}
MEASURED = {
    case: {organ: measure(*pair, SPACING) for organ, pair in organs.items()}
    for case, organs in MASKS.items()
}
DIAGONAL = math.sqrt(12**2 + 4.2**2 + 8.8**2)


def means(convention: str, score: str) -> dict[str, float | None]:
    rows = tables.organ_rows(MEASURED, ORGANS)
    return {
        row["organ"]: row["mean"]
        for row in rows
        if (row["convention"], row["score"]) == (convention, score)
    }


@pytest.mark.parametrize(
    "convention, dice, hd95",
    [
        ("paper", (0.25, 0.5, 0.0, 0.25), (0.55, 0.0, 0.0, 0.55 / 3)),
        (
            "strict",
            (0.25, 0.0, None, 0.125),
            ((1.1 + DIAGONAL) / 2, None, None, (1.1 + DIAGONAL) / 2),
        ),
        ("nnunet", (0.25, 0.0, None, 0.125), (1.1, None, None, 1.1)),
        ("both_empty_one", (0.25, 0.5, 1.0, 1.75 / 3), (1.1, 0.0, 0.0, 1.1 / 3)),
    ],
)
def test_means_under_every_convention(convention, dice, hd95):
    names = [*ORGANS, tables.OVERALL]
    assert means(convention, "dice") == pytest.approx(dict(zip(names, dice, strict=True)))
    assert means(convention, "hd95_mm") == pytest.approx(dict(zip(names, hd95, strict=True)))


@pytest.mark.parametrize(
    "convention, expected",
    [
        (
            "paper",
            "of 6 pairs of case and organ 1 is missed, counting Dice 0 and HD95 0 (as if right), "
            "and 1 is invented, counting Dice 1 and HD95 0 (both as if right), by convention "
            "paper; where every error counts (strict) the means are Dice 0.125, HD95 ",
        ),
        (
            "strict",
            "1 is missed, counting Dice 0 and the volume's diagonal as HD95, and 1 is invented, "
            "counting Dice 0 and no HD95, by convention strict.",
        ),
        ("nnunet", "1 is missed, counting Dice 0 and no HD95, and 1 is invented, counting"),
    ],
)
def test_missed_and_invented_organs_are_named_with_what_they_count(convention, expected):
    scores = tables.summary(tables.organ_rows(MEASURED, ORGANS), MEASURED, convention)
    assert expected in tables.empty_caution(scores | {"convention": convention})


def test_without_a_missed_or_invented_organ_there_is_no_caution():
    fine = {"a": {organ: MEASURED["a"][organ] for organ in ORGANS}}
    scores = tables.summary(tables.organ_rows(fine, ORGANS), fine, "paper")
    assert tables.empty_caution(scores | {"convention": "paper"}) is None


def scored(spacings: dict[str, tuple[float, ...]], shape=(4, 6, 8)) -> dict:
    """metrics.json of one organ that is a voxel off along the rows, a spacing a case."""
    truth = np.zeros(shape, bool)
    truth[..., 2:4, 2:4] = True
    found = {
        case: {"liver": measure(truth, np.roll(truth, 1, axis=-2), spacing)}
        for case, spacing in spacings.items()
    }
    scores = tables.summary(tables.organ_rows(found, ["liver"]), found, "strict")
    return scores | {"cases": len(found), "convention": "strict"}


def test_a_tolerance_below_the_voxel_size_is_named_with_both():
    scores = scored({"a": (3.0, 2.5, 2.5), "b": (1.5, 1.0, 1.0)})
    assert scores["voxel_mm"] == {"shortest": 1.0, "longest": 3.0}
    assert scores["below_voxel"] == {"nsd_1mm": 2, "nsd_2mm": 1, "nsd_3mm": 0}
    assert tables.tolerance_caution(scores) == (
        "NSD at 1 mm (in 2 of 2 cases), NSD at 2 mm (in 1 of 2 cases): the tolerance is below "
        "the voxel size (sides of 1 to 3 mm), so that a surface one voxel off along the longest "
        "side counts as wrong; such a number says as much about the grid as about the prediction."
    )


def test_tolerances_below_every_side_are_the_same_number_and_said_to_be():
    scores = scored({"a": (2.5, 2.5, 2.5)})
    assert scores["mean_nsd_1mm"] == scores["mean_nsd_2mm"] < scores["mean_nsd_3mm"] == 1
    sentence = tables.tolerance_caution(scores)
    assert "below the voxel size (2.5 mm), so that a surface one voxel off counts" in sentence
    assert "warning: NSD at 1 mm (in 1 of 1 cases), NSD at 2 mm" in printed(scores)


def printed(scores: dict) -> str:
    """What `print_scores` prints."""
    with pytest.MonkeyPatch.context() as patch, io.StringIO() as text:
        patch.setattr("sys.stdout", text)
        tables.print_scores(scores, "scores")
        return text.getvalue()


@pytest.mark.parametrize(
    "spacing, shape",
    [
        ((1.0, 0.5, 0.5), (4, 6, 8)),
        # rounding of a header's float32, and an axis along which nothing can be off
        ((1.0000001, 1.0000001, 1.0000001), (4, 6, 8)),
        ((9.0, 1.0, 1.0), (1, 6, 8)),
    ],
)
def test_a_tolerance_that_the_grid_can_show_is_not_marked(spacing, shape):
    scores = scored({"a": spacing}, shape)
    assert scores["mean_nsd_1mm"] == 1
    assert tables.tolerance_caution(scores) is None
    assert tables.cautions(scores) == []


def test_test_images_that_an_encoder_may_have_seen_are_named():
    scores = scored({"a": (1.0, 0.5, 0.5)})
    before = {"trained_on": "photographs and scans", "may_include_test": True}
    assert tables.cautions(scores | {"pretraining": before}) == [
        "the encoder's weights were trained on photographs and scans; test images of this data "
        "set may be among these, and then the scores say too much about unseen images."
    ]
    assert "warning: the encoder's weights" in printed(scores | {"pretraining": before})
    assert tables.cautions(scores | {"pretraining": before | {"may_include_test": False}}) == []


def test_scores_of_earlier_versions_are_shown_without_voxel_sizes():
    scores = scored({"a": (3.0, 2.5, 2.5)})
    del scores["voxel_mm"], scores["below_voxel"]
    assert tables.voxel_mm(scores) is None and tables.cautions(scores) == []


def test_tables_mark_tolerances_below_the_voxel_size():
    rows = tables.organ_rows(MEASURED, ORGANS)
    marked = {row["score"] for row in rows if row["below_voxel"]}
    assert marked == {"nsd_1mm", "nsd_2mm"}  # of slices 3 mm apart
    assert {row["voxel_mm"] for row in tables.case_rows(MEASURED, "strict")} == {3.0}
    titles = [SCORES[name].marked(3.0).title for name in ("nsd_2mm", "nsd_3mm", "dice")]
    assert titles == ["NSD at 2 mm (below voxel size)", "NSD at 3 mm", "Dice"]


def test_headline_has_no_entry_for_what_is_left_out_everywhere():
    rows = tables.organ_rows(MEASURED, ORGANS)
    head = tables.headline(rows, "strict")
    assert head["dice"] == {"liver": 0.25, "spleen": 0.0}
    assert list(head["hd95_mm"]) == ["liver"]
    assert head["mean_dice"] == 0.125
    assert {f"mean_{score}" for score in SCORES} <= set(head)
    assert tables.overall(rows, "strict") == {
        name: head[name] for name in ("mean_dice", "mean_hd95_voxels", "mean_hd95_mm")
    }


def test_spread_and_cases():
    rows = {
        (row["organ"], row["score"]): row
        for row in tables.organ_rows(MEASURED, ORGANS)
        if row["convention"] == "strict"
    }
    liver, spleen = rows["liver", "dice"], rows["spleen", "dice"]
    assert liver["sd"] == pytest.approx(np.std([0.5, 0], ddof=1))
    assert (liver["cases"], spleen["cases"], rows["aorta", "dice"]["cases"]) == (2, 1, 0)
    assert spleen["sd"] is None and spleen["low"] is None
    # the cases' means over their organs: 0.5 and 0
    assert rows[tables.OVERALL, "dice"]["sd"] == pytest.approx(np.std([0.5, 0], ddof=1))


def test_tables_say_the_same_in_both_forms(tmp_path):
    rows = tables.case_rows(MEASURED, "strict")
    tables.write_table(tmp_path, "cases", rows, tables.case_schema())
    tables.write_table(tmp_path, "organs", tables.organ_rows(MEASURED, ORGANS), tables.ORGANS)
    for name in ("cases", "organs"):
        table = pd.read_parquet(tmp_path / f"{name}.parquet")
        pd.testing.assert_frame_equal(
            table, pd.read_csv(tmp_path / f"{name}.csv"), check_dtype=False
        )
    assert len(table) == len(CONVENTIONS) * (len(ORGANS) + 1) * len(SCORES)


def test_measures_survive_json():
    stored = tables.from_json(tables.to_json(MEASURED["b"]))
    assert repr(stored) == repr(MEASURED["b"])
    assert isinstance(stored["liver"], Measures)

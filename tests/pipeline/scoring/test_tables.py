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
            "of 6 pairs of case and organ 1 missed, counting Dice 0 and HD95 0, as if right and "
            "1 invented, counting Dice 1, as if right and HD95 0, as if right (convention paper); "
            "where every error counts (strict) the means are Dice 0.125, ",
        ),
        (
            "strict",
            "1 missed, counting Dice 0 and the volume's diagonal as HD95 and 1 invented, "
            "counting Dice 0 and no HD95 (convention strict).",
        ),
        ("nnunet", "1 missed, counting Dice 0 and no HD95 and 1 invented, counting"),
    ],
)
def test_missed_and_invented_organs_are_named_with_what_they_count(convention, expected):
    scores = tables.summary(tables.organ_rows(MEASURED, ORGANS), MEASURED, convention)
    assert expected in tables.caution(scores | {"convention": convention})


def test_without_a_missed_or_invented_organ_there_is_no_caution():
    fine = {"a": {organ: MEASURED["a"][organ] for organ in ORGANS}}
    scores = tables.summary(tables.organ_rows(fine, ORGANS), fine, "paper")
    assert tables.caution(scores | {"convention": "paper"}) is None


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

import numpy as np
import pytest

from pipeline.scoring.review import (
    LONGEST,
    MOST,
    Pairs,
    in_order,
    quality,
    review_rows,
    uncertain_pixels,
)


def test_neighbouring_slices_of_one_organ_are_one_row():
    liver, spleen = [0, 4, 10, 6, 1, 0, 8, 0], [0, 0, 9, 0, 0, 0, 0, 0]
    rows = review_rows("a", np.array([liver, spleen], float).T, ["liver", "spleen"])
    found = [(r["organ"], r["slice"], r["first"], r["last"], r["expected_mm2"]) for r in rows]
    assert found == [
        ("liver", 2, 2, 3, 16),  # 4 is less than half of 10
        ("spleen", 2, 2, 2, 9),
        ("liver", 6, 6, 6, 8),
        ("liver", 1, 1, 1, 4),
        ("liver", 4, 4, 4, 1),
    ]


def test_a_row_is_looked_at_in_one_go():
    """A whole organ of 20 slices, the largest area at 12: rows around it, then what is left."""
    areas = 100.0 - np.abs(np.arange(20) - 12)
    rows = review_rows("a", areas[:, None], ["liver"])
    assert [(row["first"], row["last"]) for row in rows] == [(9, 15), (2, 8), (16, 19), (0, 1)]
    assert rows[0]["slice"] == 12 and rows[0]["last"] - rows[0]["first"] + 1 == LONGEST
    assert sum(row["expected_mm2"] for row in rows) == areas.sum()


def test_a_large_error_comes_before_a_speck_that_is_wholly_wrong():
    coarse, fine = np.zeros((2, 4, 20, 20), np.uint8)
    fine[0, 0, 0] = 1  # disagreement 1, one pixel
    coarse[2, :10], fine[2, :14] = 1, 1  # disagreement 80 / 480
    stages = Pairs.of(coarse, fine, 1)
    rows = review_rows("a", 0.5 * stages.differing, ["liver"], stages)
    assert [(row["slice"], row["expected_mm2"]) for row in rows] == [(2, 40), (0, 0.5)]
    assert [row["disagreement"] for row in rows] == [pytest.approx(80 / 480), 1]


def test_a_case_has_a_limited_number_of_rows_and_cases_are_mixed_by_area():
    areas = np.zeros((200, 1))
    areas[::2, 0] = np.arange(100) + 1
    one, other = (review_rows(case, areas, ["liver"]) for case in ("a", "b"))
    assert len(one) == MOST and one[0]["slice"] == 198
    assert [row["case"] for row in in_order(one + other)][:4] == ["a", "b", "a", "b"]


def test_true_error_and_dice_are_those_of_the_row():
    truth, prediction = np.zeros((2, 3, 4, 4), np.uint8)
    truth[1, :2], prediction[1, :1] = 1, 1
    truth[2, :1] = 1
    expected = np.array([[3.0], [4.0], [4.0]])
    scored = Pairs.of(truth, prediction, 1)
    (row,) = review_rows("a", expected, ["liver"], None, scored, 2.0)
    assert (row["first"], row["last"], row["error_mm2"]) == (0, 2, 2.0 * 8)
    assert row["dice"] == pytest.approx(2 * 4 / 16) and row["disagreement"] is None
    (row,) = review_rows("a", np.array([[3.0], [0.0], [0.0]]), ["liver"], None, scored)
    assert row["dice"] is None  # neither has the organ there


def test_open_pixels_by_probabilities():
    probabilities = np.array([[255, 51], [0, 204]], np.uint8).reshape(2, 1, 1, 2)
    labels = np.array([[[0, 1]]])
    assert uncertain_pixels(labels, probabilities, 255) == pytest.approx(51 / 255)
    assert uncertain_pixels(1 - labels, probabilities, 255) == pytest.approx(1 + 204 / 255)


def test_quality_is_the_share_of_the_true_error_in_the_first_rows():
    expected = np.arange(100, 0, -1.0)[:, None] * (np.arange(100)[:, None] % 2 == 0)
    error = 2 * expected
    truth = Pairs(error.astype(int), np.zeros_like(error, int))
    rows = in_order(
        row
        for start in range(0, 100, 20)
        for row in review_rows(
            f"{start}",
            expected[start : start + 20],
            ["x"],
            None,
            Pairs(truth.sizes[start : start + 20], truth.shared[start : start + 20]),
        )
    )
    found = quality(rows, expected.ravel(), error.ravel())
    assert found["rows"] == 50 and found["pairs"] == 100
    assert found["found_in_first"] == pytest.approx(error[:40].sum() / error.sum())
    assert found["looked_at"] == 0.2 and found["spearman"] == pytest.approx(1)
    assert "found_in_first" not in quality([], np.zeros(3), np.zeros(3))

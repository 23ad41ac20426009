import numpy as np
import pytest

from pipeline.scoring.review import (
    FIRST,
    LONGEST,
    MOST,
    Pairs,
    in_order,
    quality,
    review_rows,
    row_errors,
    sentence,
)
from pipeline.scoring.uncertainty import ExpectedError


def expecting(areas, pixel_mm=(1.0, 1.0)):
    """Areas (slices, organs); the doubt of slice s is at row s, column s + 1."""
    areas = np.asarray(areas, float)
    places = np.broadcast_to(np.arange(len(areas))[:, None, None] + [0, 1], (*areas.shape, 2))
    return ExpectedError(areas, places, pixel_mm)


def wrong(areas):
    """Masks of truth and prediction that share no pixel and have the areas in all."""
    sizes = np.asarray(areas).astype(np.int64)
    return Pairs(sizes, np.zeros_like(sizes))


def blobs(seed, slices=60, organs=4):
    """Areas (slices, organs) that rise and fall along the slices, with gaps."""
    draw = np.random.default_rng(seed)
    rough = draw.random((slices + 4, organs)) ** 2
    smooth = sum(rough[shift : slices + shift] for shift in range(5))
    return np.round(100 * smooth * (draw.random((slices, organs)) > 0.2))


def test_neighbouring_slices_of_one_organ_are_one_row():
    liver, spleen = [0, 4, 10, 6, 1, 0, 8, 0], [0, 0, 9, 0, 0, 0, 0, 0]
    rows = review_rows("a", expecting(np.array([liver, spleen]).T), ["liver", "spleen"])
    found = [(r["organ"], r["slice"], r["first"], r["last"], r["expected_mm2"]) for r in rows]
    assert found == [
        ("liver", 2, 2, 3, 16),  # 4 is less than half of 10
        ("spleen", 2, 2, 2, 9),
        ("liver", 6, 6, 6, 8),
        ("liver", 1, 1, 1, 4),
        ("liver", 4, 4, 4, 1),
    ]
    assert [(row["row"], row["column"]) for row in rows] == [(2, 3), (2, 3), (6, 7), (1, 2), (4, 5)]


def test_a_row_is_looked_at_in_one_go():
    """A whole organ of 20 slices, the largest area at 12: rows around it, then what is left."""
    areas = 100.0 - np.abs(np.arange(20) - 12)
    rows = review_rows("a", expecting(areas[:, None]), ["liver"])
    assert [(row["first"], row["last"]) for row in rows] == [(9, 15), (2, 8), (16, 19), (0, 1)]
    assert rows[0]["slice"] == 12 and rows[0]["last"] - rows[0]["first"] + 1 == LONGEST
    assert sum(row["expected_mm2"] for row in rows) == areas.sum()


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_in_order_have_no_slice_of_an_organ_in_common_and_hold_all(seed):
    areas = blobs(seed, slices=20, organs=2)
    rows = review_rows("a", expecting(areas), ["liver", "spleen"])
    assert 3 < len(rows) <= MOST
    held = np.zeros(areas.shape, int)
    for row in rows:
        part = (slice(row["first"], row["last"] + 1), ["liver", "spleen"].index(row["organ"]))
        held[part] += 1
        assert row["expected_mm2"] == areas[part].sum()
        assert areas[row["slice"], part[1]] == areas[part].max()
    assert np.array_equal(held, areas > 0)
    sums = [row["expected_mm2"] for row in rows]
    assert sums == sorted(sums, reverse=True)
    assert review_rows("a", expecting(areas), ["liver", "spleen"]) == rows


def test_a_row_says_how_far_the_stages_differ():
    coarse, fine = np.zeros((2, 4, 20, 20), np.uint8)
    fine[0, 0, 0] = 1  # disagreement 1, one pixel
    coarse[2, :10], fine[2, :14] = 1, 1  # disagreement 80 / 480
    stages = Pairs.of(coarse, fine, 1)
    rows = review_rows("a", expecting(0.5 * stages.differing), ["liver"], stages)
    assert [(row["slice"], row["expected_mm2"]) for row in rows] == [(2, 40), (0, 0.5)]
    assert [row["disagreement"] for row in rows] == [pytest.approx(80 / 480), 1]


def test_a_case_has_a_limited_number_of_rows_and_cases_are_mixed_by_area():
    areas = np.zeros((200, 1))
    areas[::2, 0] = np.arange(100) + 1
    one, other = (review_rows(case, expecting(areas), ["liver"]) for case in ("a", "b"))
    assert len(one) == MOST and one[0]["slice"] == 198
    assert [row["case"] for row in in_order(one + other)][:4] == ["a", "b", "a", "b"]


def test_true_error_and_dice_are_those_of_the_row():
    truth, prediction = np.zeros((2, 3, 4, 4), np.uint8)
    truth[1, :2], prediction[1, :1] = 1, 1
    truth[2, :1] = 1
    scored = Pairs.of(truth, prediction, 1)
    expected = expecting([[3.0], [4.0], [4.0]], (1.0, 2.0))
    (row,) = review_rows("a", expected, ["liver"], None, scored)
    assert (row["first"], row["last"], row["error_mm2"]) == (0, 2, 2.0 * 8)
    assert row["dice"] == pytest.approx(2 * 4 / 16) and row["disagreement"] is None
    (row,) = review_rows("a", expecting([[3.0], [0.0], [0.0]]), ["liver"], None, scored)
    assert row["dice"] is None  # neither has the organ there


def judged(cases):
    """Quality of the list of cases, each of expected and true areas (slices, organs)."""
    rows, every, ideal = [], [], []
    for name, (expected, error) in enumerate(cases):
        organs = [str(organ) for organ in range(expected.shape[1])]
        rows += review_rows(f"{name}", expecting(expected), organs, None, wrong(error))
        every += row_errors(expected, error)
        ideal += row_errors(error, error)
    areas = [np.concatenate([case[part].ravel() for case in cases]) for part in (0, 1)]
    return quality(in_order(rows), *areas, every, ideal)


def test_quality_is_the_share_of_the_true_error_in_the_first_rows():
    expected = np.arange(100, 0, -1.0)[:, None] * (np.arange(100)[:, None] % 2 == 0)
    found = judged([(part, 2 * part) for part in np.split(expected, 5)])
    assert found["rows"] == 50 and found["pairs"] == 100
    assert found["found_in_first"] == pytest.approx(expected[:40].sum() / expected.sum())
    assert found["looked_at"] == 0.2 and found["spearman"] == pytest.approx(1)
    assert found["random"] == pytest.approx(FIRST / 50)


def test_a_list_that_knows_the_truth_is_the_ideal_and_one_of_noise_is_not():
    errors = [blobs(seed) for seed in range(3)]
    best = judged([(error, error) for error in errors])
    assert best["found_in_first"] == best["ideal"] and best["of_ideal"] == 1
    noise = judged([(blobs(9 + seed), error) for seed, error in enumerate(errors)])
    assert noise["ideal"] == best["ideal"]
    assert noise["of_ideal"] < 0.7 and abs(noise["found_in_first"] - noise["random"]) < 0.15
    blind = judged([(np.zeros_like(error), error) for error in errors])
    assert blind["found_in_first"] == blind["random"] == 0 and blind["ideal"] == best["ideal"]


def test_what_is_said_of_the_quality():
    review = {"rows": 8, "found_in_first": 0.5, "random": 0.25, "ideal": 0.75}
    assert sentence(review) == (
        "the first 8 rows hold 50.0% of the true error area; rows in random order would hold "
        "25.0%, those of an ideal list 75.0%"
    )
    assert "found_in_first" not in quality([], np.zeros(3), np.zeros(3), [], [])
    assert "no error" in sentence(quality([], np.zeros(3), np.zeros(3), [], []))

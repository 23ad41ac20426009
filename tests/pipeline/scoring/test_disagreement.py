import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.scoring import dice, disagreement
from pipeline.scoring.disagreement import Disagreement, stage_disagreement

NAMES = ["liver", "spleen"]


def test_hand_made():
    coarse, fine = np.zeros((2, 3, 2, 4), np.uint8)
    coarse[0, 0, :4], fine[0, 0, :2] = 1, 1  # Dice 2 * 2 / 6
    coarse[1, 0, 0], fine[1, 1, 0] = 2, 2  # nothing shared
    coarse[1, 1, 1:4] = 1  # in one stage only, larger
    coarse[2], fine[2] = 1, 1  # equal
    found = stage_disagreement(coarse, fine, NAMES, pixel_mm2=0.5)
    assert found == [
        Disagreement(1, "liver", 1.0, 1.5),
        Disagreement(1, "spleen", 1.0, 1.0),
        Disagreement(0, "liver", pytest.approx(1 / 3), 1.0),
    ]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_it_is_one_less_dice_and_zeros_are_left_out(seed):
    coarse, fine = np.random.default_rng(seed).integers(0, 3, (2, 4, 3, 2)).astype(np.uint8)
    found = {(d.slice, d.organ): d for d in stage_disagreement(coarse, fine, NAMES, 2.0)}
    for index in range(4):
        for label, name in enumerate(NAMES, 1):
            a, b = coarse[index] == label, fine[index] == label
            if (a == b).all():
                assert (index, name) not in found
            else:
                item = found[index, name]
                assert item.disagreement == pytest.approx(1 - dice.dice(a, b))
                assert item.differing_mm2 == 2.0 * (a != b).sum()


def test_rows_of_several_cases_come_worst_first():
    one = disagreement.review_rows("b", [Disagreement(0, "liver", 1.0, 2.0)])
    two = [Disagreement(3, "liver", 1.0, 7.0), Disagreement(2, "spleen", 0.5, 90.0)]
    rows = disagreement.worst_first(one + disagreement.review_rows("a", two))
    assert [(row["case"], row["slice"]) for row in rows] == [("a", 3), ("b", 0), ("a", 2)]
    assert "dice" not in rows[0]


def test_rows_with_truth_hold_what_the_stages_agree_on():
    coarse, fine, truth = np.zeros((3, 3, 1, 4), np.uint8)
    coarse[0, 0, :4], fine[0, 0, :2], truth[0, 0, :1] = 1, 1, 1
    coarse[1], fine[1] = 2, 2  # agreed on, and not there
    truth[2] = 1  # missed by both
    rows = disagreement.rows_with_truth("a", (coarse, fine), truth, fine, NAMES, 1.0)
    found = [(row["slice"], row["organ"], row["disagreement"], row["dice"]) for row in rows]
    assert found == [
        (0, "liver", pytest.approx(1 / 3), pytest.approx(2 / 3)),
        (1, "spleen", 0.0, 0.0),
        (2, "liver", 0.0, 0.0),
    ]
    coarse[2, 0, 0], truth[2] = 1, 0  # in one stage alone, neither scored nor there
    rows = disagreement.rows_with_truth("a", (coarse, fine), truth, fine, NAMES, 1.0)
    assert (rows[0]["disagreement"], rows[0]["dice"]) == (1.0, None)


def test_rank_correlation():
    first, second = np.random.default_rng(2).random((2, 9)).round(1)
    # Spearman's is Pearson's of the ranks, ties sharing the mean rank
    ranks = [stats.rankdata(values) for values in (first, second)]
    expected = np.corrcoef(*ranks)[0, 1]
    assert disagreement.rank_correlation(first, second) == pytest.approx(expected)
    assert disagreement.rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert disagreement.rank_correlation([1, 2], [2, 1]) is None
    assert disagreement.rank_correlation([1, 1, 1], [1, 2, 3]) is None


@pytest.mark.parametrize("shapes", [((2, 3, 4), (2, 3, 5)), ((3, 4), (3, 4))])
def test_volumes_that_do_not_fit(shapes):
    with pytest.raises(ValueError, match="one shape"):
        stage_disagreement(*(np.zeros(shape, int) for shape in shapes), NAMES, 1.0)

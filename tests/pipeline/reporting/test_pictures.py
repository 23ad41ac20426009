from collections import Counter

import numpy as np
import pytest

from pipeline.reporting.pictures import choose_slices, slice_dice_text

ORGANS = {
    "a": np.array([0, 1, 3, 4, 4, 3, 1, 0]),
    "b": np.array([0, 8, 8, 2]),
    "c": np.array([0, 0]),
}


def chosen(number: int, seed: int = 0) -> list[tuple[str, int]]:
    return choose_slices(ORGANS, number, np.random.default_rng(seed))


@pytest.mark.parametrize("seed", range(5))
def test_cases_take_turns_and_rich_slices_come_first(seed):
    pairs = chosen(9, seed)
    assert len(set(pairs)) == 9
    assert Counter(case for case, _ in pairs[:6]) == {"a": 2, "b": 2, "c": 2}
    a = [index for case, index in pairs if case == "a"]
    b = [index for case, index in pairs if case == "b"]
    assert set(a[:4]) <= {2, 3, 4, 5}
    assert set(b[:2]) == {1, 2}
    assert b[2:] == [3, 0][: len(b) - 2]


def test_poor_slices_come_by_their_organs():
    pairs = chosen(14)
    assert len(pairs) == 14
    b = [index for case, index in pairs if case == "b"]
    assert b[2:] == [3, 0]


def test_the_seed_decides():
    assert chosen(4, 1) == chosen(4, 1)
    assert len({tuple(chosen(4, seed)) for seed in range(10)}) > 3


def test_asking_for_more_than_there_are_gives_all():
    assert len(chosen(100)) == 14
    assert choose_slices({}, 3, np.random.default_rng(0)) == []


def test_captions():
    truth = np.array([[0, 1, 1, 2]], np.uint8)
    assert slice_dice_text(truth, np.array([[0, 1, 0, 0]])) == "Dice 0.333 over 2 organs"
    assert slice_dice_text(truth * 0, truth * 0) == "no organ, none predicted"
    assert slice_dice_text(truth * 0, truth // 2) == "Dice 0.000 over 1 organ"

import os

import pytest

from pipeline.core.errors import UserError
from pipeline.core.pool import over_cases


def work(value):
    if value < 0:
        raise UserError([f"{value} is negative", "mend it"])
    if value == 99:
        os._exit(1)
    return value * 2


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_and_problems_in_the_order_of_the_cases(jobs):
    cases = {"c": 3, "a": -1, "b": 2}
    results, problems = over_cases(work, cases, jobs, "work")
    assert list(results.items()) == [("c", 6), ("b", 4)]
    assert problems == ["-1 is negative", "mend it"]


def test_nothing_to_do():
    assert over_cases(work, {}, 2, "work") == ({}, [])


def test_killed_worker_is_a_sentence():
    with pytest.raises(UserError, match="a worker process was killed, .* fewer --jobs"):
        over_cases(work, {"a": 99, "b": 1}, 2, "work")

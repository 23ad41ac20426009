"""How far a study is, and what is left of it."""

from pathlib import Path

import pytest

from pipeline.core.files import write_json
from pipeline.core.params.blocks import stage_params
from pipeline.studies import plan, progress
from pipeline.studies.progress import Left, left, to_do

RESULTS = Path("results")


def finish(run: plan.Run, *stages: str, seconds: float = 10.0, devices: int = 1) -> None:
    """The outputs of stages, as far as they are looked at: 100 bytes beside the records."""
    for stage in stages:
        folder = run.places(RESULTS)[stage]
        folder.mkdir(parents=True)
        write_json(folder / "provenance.json", {"params": stage_params(run.params, stage)})
        if stage == "train":
            cost = {"seconds": seconds, "device": "CPU", "devices": devices}
            write_json(folder / "cost.json", cost | {"peak_memory_mib": None})


@pytest.fixture
def runs(workflow) -> tuple[plan.Run, ...]:
    return plan.load("ranks")[0].runs  # two arms of two seeds


def test_before_the_first_run_costs_are_unknown(runs):
    assert left(runs, RESULTS) == Left(runs=4, seconds=None, bytes=None)


def test_an_arm_costs_what_its_own_runs_did_and_others_the_mean(runs):
    finish(runs[0], "train", "evaluate", seconds=10.0, devices=2)
    found = left(runs, RESULTS)
    assert (found.runs, found.seconds) == (3, 60.0)
    assert found.bytes == 3 * progress.size(runs[0], RESULTS) > 0
    finish(runs[2], "train", seconds=40.0)
    assert left(runs, RESULTS).seconds == 20.0 + 40.0


def test_nothing_is_left_of_what_is_done(runs):
    for run in runs:
        finish(run, "train", "evaluate")
    assert left(runs, RESULTS) == Left(runs=0, seconds=0, bytes=0)


def test_why_a_run_is_to_do(runs):
    run, places = runs[0], runs[0].places(RESULTS)
    assert to_do(run, places) == "not trained yet"
    finish(run, "train")
    assert to_do(run, places, "train") is None
    assert to_do(run, places) == "not evaluated yet"
    finish(run, "evaluate")
    assert to_do(run, places) is None
    assert to_do(runs[2], places) == "trained with other parameters"

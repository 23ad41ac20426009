"""The rule by which a published number counts as reproduced."""

import math

import pytest

from pipeline.studies import plan
from pipeline.studies.intervals import stack
from pipeline.studies.outcomes import outcomes
from pipeline.studies.verdict import is_synthetic, objections, unsettled, verdict
from tests.pipeline.studies.conftest import PRESET, RANKS, write
from tests.pipeline.studies.outputs import RESULTS, finish

SYNAPSE = PRESET | {"dataset": {"name": "synapse", "root": "data/raw/synapse"}}


@pytest.mark.parametrize(
    ("published", "low", "high", "objection", "word"),
    [
        (80.35, 78.0, 82.0, None, "reproduced"),
        (80.35, 80.35, 82.0, None, "reproduced"),
        (80.35, 80.4, 82.0, None, "not reproduced"),
        (80.35, 75.0, 80.3, None, "not reproduced"),
        (80.35, 74.0, 84.1, None, "cannot say"),
        (80.35, math.nan, math.nan, None, "cannot say"),
        (80.35, 78.0, 82.0, "2 seeds", "cannot say"),
    ],
)
def test_the_rule(published, low, high, objection, word):
    assert verdict(published, low, high, objection).word == word


def test_few_seeds_or_runs_to_do_allow_no_verdict(workflow):
    write(workflow / "studies" / "ranks.yaml", RANKS | {"seeds": [1, 2, 3]})
    plan.load.cache_clear()
    (study,) = plan.load("ranks")

    def why(found):
        return unsettled(found, stack(found, "paper", ["liver", "spleen"], ["dice"]))

    found = outcomes((study,), RESULTS)
    assert why(found[:3]) == "3 of 3 runs are to do"
    finish(study, lambda run, case, organ: 0.5)
    found = outcomes((study,), RESULTS)
    assert why(found[:3]) is None
    assert why(found[:2]) == "fewer than 3 seeds"


def objections_on(workflow, **changes) -> dict[str, str]:
    """On the study's own preset with some values changed."""
    write(workflow / "presets" / "small.yaml", SYNAPSE)
    write(workflow / "presets" / "mine.yaml", changes)
    plan.load.cache_clear()
    (study,) = plan.load("ranks", ("mine",))
    return objections(study)


def test_where_and_how_the_work_is_done_is_no_objection(workflow):
    how = {"dataset": {"root": "elsewhere"}, "train": {"workers": 3}, "evaluate": {"batch_size": 3}}
    assert objections_on(workflow, **how) == {}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"train": {"epochs": 7}}, "train.epochs"),
        ({"dataset": {"name": "la"}}, "dataset.name"),
        ({"split": {"subjects": 2}}, "split.subjects"),
    ],
    ids=str,
)
def test_other_work_is_an_objection_that_names_it(workflow, changes, named):
    found = objections_on(workflow, **changes)
    assert set(found) == set(RANKS["arms"])
    assert all(named in sentence for sentence in found.values())


def test_synthetic_volumes_are_known_as_such(workflow):
    assert is_synthetic(plan.load("ranks")[0])
    write(workflow / "presets" / "small.yaml", SYNAPSE)
    plan.load.cache_clear()
    assert not is_synthetic(plan.load("ranks")[0])

"""What came out of each run, and which runs count as finished."""

import numpy as np
import pytest

from pipeline.core import files, run_folder
from pipeline.core.errors import UserError
from pipeline.scoring import tables
from pipeline.scoring.conventions import CONVENTIONS
from pipeline.scoring.measures import measure
from pipeline.scoring.scores import SCORES
from pipeline.studies import plan
from pipeline.studies.outcomes import arms, outcomes
from tests.pipeline.masks import blob
from tests.pipeline.studies.outputs import ORGANS, RESULTS, SHAPE, SPACING, finish, write_outputs


def test_a_run_without_outputs_is_to_do(workflow):
    found = outcomes(plan.load("ranks"), RESULTS)
    assert [outcome.missing for outcome in found] == ["not trained yet"] * 4
    assert all(outcome.cases.empty and outcome.history.empty for outcome in found)


def test_a_finished_run_has_scores_history_and_facts(workflow):
    studies = plan.load("ranks")
    finish(studies[0], lambda run, case, organ: 0.5)
    by_arm = arms(outcomes(studies, RESULTS))
    assert list(by_arm) == ["rank-1", "rank-4"]
    outcome = by_arm["rank-4"][1]
    assert outcome.done
    assert outcome.organs == ORGANS
    assert set(outcome.cases["convention"]) == set(CONVENTIONS)
    assert set(outcome.cases["dice"]) == {0.5}
    assert list(outcome.history["train_loss"]) == [1.5, 0.5]
    facts = outcome.facts
    assert (facts.model, facts.backbone, facts.lora_rank, facts.device) == (
        "hsam",
        "vit_tiny",
        4,
        "CPU",
    )
    assert (facts.test_cases, facts.train_subjects, facts.train_slices) == (6, 1, 50)  # half of 100
    assert facts.batch == outcome.run.params.train.batch_size


def measured():
    """One case each in which an organ is there, missed, invented, absent."""
    mask, other, empty = blob(1, SHAPE), blob(2, SHAPE), np.zeros(SHAPE, bool)
    pairs = {"a": (mask, other), "b": (mask, empty), "c": (empty, mask), "d": (empty, empty)}
    return {
        case: {organ: measure(*pair, SPACING) for organ in ORGANS} for case, pair in pairs.items()
    }


@pytest.mark.parametrize("scored", list(CONVENTIONS))
def test_every_convention_follows_from_the_one_that_was_scored(workflow, scored):
    (study,), truth = plan.load("ranks"), measured()
    write_outputs(study.runs[0], tables.case_rows(truth, scored))
    cases = outcomes((study,), RESULTS)[0].cases
    for name in CONVENTIONS:
        expected = tables.score_array(truth, ORGANS, name)
        found = cases[cases["convention"] == name][list(SCORES)].to_numpy(np.float64)
        np.testing.assert_allclose(found, expected.reshape(found.shape), err_msg=name)


@pytest.mark.parametrize(
    ("stage", "change", "why"),
    [
        ("train", {"params": {}}, "trained with other parameters"),
        ("evaluate", {"params": {}}, "evaluated with other parameters"),
        ("evaluate", None, "not evaluated yet"),
        ("evaluate", {"inputs": {}}, "evaluated with other weights"),
    ],
    ids=str,
)
def test_what_is_out_of_date_is_to_do(workflow, stage, change, why):
    (study,) = plan.load("ranks")
    finish(study, lambda run, case, organ: 0.5)
    path = study.runs[0].places(RESULTS)[stage] / run_folder.PROVENANCE
    if change is None:
        path.unlink()
    else:
        files.write_json(path, files.read_json(path) | change)
    found = outcomes((study,), RESULTS)
    assert [outcome.missing for outcome in found] == [why, None, None, None]


@pytest.mark.parametrize(
    ("place", "name", "why"),
    [
        ("train", "model.safetensors", "evaluated with other weights"),
        ("train", None, "its weights are gone"),
        ("prepare", None, "its prepared volumes are gone"),
        ("split", None, "its split is gone"),
    ],
    ids=str,
)
def test_what_lies_there_has_to_be_what_was_evaluated(workflow, place, name, why):
    (study,) = plan.load("ranks")
    finish(study, lambda run, case, organ: 0.5)
    folder = study.runs[0].places(RESULTS)[place]
    if name is not None:
        (folder / name).write_bytes(b"others")
    else:
        for path in folder.glob("*.parquet" if place != "train" else "*.safetensors"):
            path.unlink()
    assert outcomes((study,), RESULTS)[0].missing == why


def test_a_damaged_table_is_named(workflow):
    (study,) = plan.load("ranks")
    finish(study, lambda run, case, organ: 0.5)
    (study.runs[0].places(RESULTS)["evaluate"] / "cases.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match=r"cases\.parquet: damaged"):
        outcomes((study,), RESULTS)

"""Studies over folds: every case is tested once, and an arm's scores are those of all cases."""

import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.core.params.load import overlay
from pipeline.scoring.bootstrap import mean_intervals
from pipeline.scoring.tables import OVERALL
from pipeline.studies import plan
from pipeline.studies.intervals import Scores, estimate, stack
from pipeline.studies.outcomes import outcomes
from pipeline.studies.sheets import sheets
from pipeline.studies.tables import tables
from pipeline.studies.verdict import objections
from tests.pipeline.studies.conftest import PRESET, RANKS, write
from tests.pipeline.studies.outputs import ORGANS, RESULTS, finish

FOLDS = 3
CASES = tuple("abcdefghi")
FOLDED = RANKS | {"folds": FOLDS, "seeds": [1]}
# rank-1 is worse in every case by another amount; folds differ
WORSE = {case: 0.05 + 0.01 * place for place, case in enumerate(CASES)}


def cases_of(run) -> tuple[str, ...]:
    """The cases of a run's fold, as the split deals them: every third."""
    return CASES[run.fold :: FOLDS]


def dice(run, case: str, organ: str) -> float:
    value = 0.9 - 0.1 * (ord(case) - ord("a")) / len(CASES) - 0.1 * run.fold
    return value - (WORSE[case] if run.arm == "rank-1" else 0)


def planned(workflow: Path, on: tuple[str, ...] = (), **changes) -> plan.Study:
    write(workflow / "studies" / "ranks.yaml", FOLDED | changes)
    plan.load.cache_clear()
    return plan.load("ranks", on)[0]


def finished(study: plan.Study) -> None:
    finish(study, dice, CASES, cases_of)


def row(rows: list[dict], **wanted) -> dict:
    (found,) = [r for r in rows if all(r[key] == value for key, value in wanted.items())]
    return found


def test_every_draw_and_seed_is_run_over_all_folds(workflow):
    study = planned(workflow, seeds=[1, 2])
    names = [run.name for run in study.runs if run.arm == "rank-1"]
    assert names == [
        f"rank-1/draw-7-seed-{seed}-fold-{fold}" for seed in (1, 2) for fold in range(FOLDS)
    ]
    run = plan.find("ranks/rank-4/draw-7-seed-2-fold-1")
    split = run.params.split
    assert (run.fold, split.folds, split.fold, split.test) == (1, FOLDS, 1, None)
    assert run.label == "ranks-rank-4-d7-s2-f1"
    # arms and seeds share a fold's split, folds don't
    assert len({run.split for run in study.runs}) == FOLDS
    assert len({run.work for run in study.runs}) == len(study.runs)


def test_a_study_without_folds_has_the_runs_that_it_had(workflow):
    study = planned(workflow, folds=None)
    assert [run.name for run in study.runs] == ["rank-1/draw-7-seed-1", "rank-4/draw-7-seed-1"]
    with pytest.raises(UserError, match="lists them"):
        plan.find("ranks/rank-1/draw-7-seed-1-fold-0")


def test_an_arm_that_is_tuned_searches_once_a_fold(workflow):
    tuned = {"search": {"trials": 2}, "split": {"validation": 0.2}}
    study = planned(workflow, seeds=[1, 2], arms={"tuned": tuned}, reference=None)
    searches = {(run.seed, run.fold): run.search_name for run in study.runs}
    assert searches == {
        (seed, fold): f"tuned/draw-7-seed-1-fold-{fold}" for seed in (1, 2) for fold in range(FOLDS)
    }


@pytest.mark.parametrize("folder", ["tool", "tool/{fold}"])
def test_predictions_are_scored_fold_by_fold(workflow, folder):
    study = planned(workflow, arms={"tool": {"predictions": folder}}, reference=None, seeds=[1, 2])
    assert [run.fold for run in study.runs] == list(range(FOLDS))
    assert [str(run.predictions) for run in study.runs] == [
        folder.format(fold=fold) for fold in range(FOLDS)
    ]
    assert len({run.work for run in study.runs}) == FOLDS


def test_the_twin_may_have_fewer_folds(workflow):
    twin = {"phantoms": {"folds": 2}}
    assert {run.fold for run in planned(workflow, ("phantoms",), **twin).runs} == {0, 1}
    assert planned(workflow, ("phantoms",)).folds == FOLDS
    with pytest.raises(UserError, match=r"phantoms\.folds: the study has no folds of its own"):
        planned(workflow, **twin, folds=None)


def test_a_share_of_test_cases_gives_way_and_named_ones_do_not(workflow):
    share = planned(workflow, params={"split": {"test": 0.3}})
    assert all(run.params.split.test is None for run in share.runs)
    with pytest.raises(UserError, match=r"split\.folds: a fold is what is tested on") as refused:
        planned(workflow, params={"split": {"test": ["img0001"]}})
    assert len(refused.value.problems) == 1  # not of each arm and fold


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"folds": 1}, "folds: 1 is not allowed"),
        ({"folds": 11}, "folds: 11 asked for, phantom has 10 subjects; ask for fewer"),
        ({"params": {"split": {"group": "^img00(0|1)"}}}, "3 asked for, phantom has 2 subjects"),
        (
            {"params": {"dataset": {"name": "synapse", "root": "nowhere"}}},
            "synapse has test cases of its own (img0001, ",
        ),
        ({"params": {"split": {"list": "roles.csv"}}}, "the list names the roles itself"),
    ],
    ids=str,
)
def test_folds_that_the_data_do_not_allow(workflow, changes, sentence):
    write(
        workflow / "presets" / "small.yaml",
        overlay(PRESET, {"dataset": {"phantom": {"cases": 10}}}),
    )
    with pytest.raises(UserError) as refused:
        planned(workflow, **changes)
    assert sentence in "\n".join(refused.value.problems)


def test_the_literatures_test_cases_may_be_left_out(workflow):
    data = {"name": "synapse", "root": "nowhere", "cases": ["img0005", "img0006", "img0007"]}
    assert len(planned(workflow, params={"dataset": data}).runs) == 2 * FOLDS


def test_scores_of_all_folds_are_one_arms(workflow):
    study = planned(workflow)
    finished(study)
    found = [o for o in outcomes((study,), RESULTS) if o.run.arm == "rank-4"]
    scores = stack(found, "strict", ORGANS, ("dice",))
    assert (scores.runs, scores.cases) == (((7, 1),), CASES)
    assert scores.folds.tolist() == [[place % FOLDS for place in range(len(CASES))]]
    runs = {run.fold: run for run in study.runs if run.arm == "rank-4"}
    by_case = np.array([dice(runs[n % FOLDS], case, "") for n, case in enumerate(CASES)])
    values = np.repeat(by_case[:, None, None], len(ORGANS), 1)
    mean, low, high = mean_intervals(values)
    computed = estimate(scores)
    for name, expected in (("mean", mean), ("low", low), ("high", high)):
        np.testing.assert_allclose(getattr(computed, name), expected)
    spread = np.std([by_case[fold::FOLDS].mean() for fold in range(FOLDS)], ddof=1)
    assert computed.sd_folds[-1, 0] == pytest.approx(spread)


def test_arms_are_compared_case_by_case(workflow):
    study = planned(workflow)
    finished(study)
    found = tables(study, outcomes((study,), RESULTS))
    one = row(found.comparisons, arm="rank-1", organ=OVERALL, score="dice", convention="strict")
    assert one["difference"] == pytest.approx(-100 * np.mean(list(WORSE.values())))
    assert (one["pairs"], one["cases"], one["over"]) == (1, len(CASES), "cases")
    assert one["p"] == pytest.approx(2.0 ** (1 - len(CASES)), abs=1e-6)
    four = row(found.arms, row="rank-4")
    assert (four["runs"], four["planned"], four["folds"], four["test_cases"]) == (3, 3, 3, "9")
    assert [r["fold"] for r in found.runs if r["arm"] == "rank-4"] == [0, 1, 2]
    arms = sheets(found)[0]
    assert "sd folds" in arms.header
    assert "Each case is tested in one of 3 folds; means are over all cases." in arms.notes


def test_a_fold_that_is_to_do_leaves_its_cases_out(workflow):
    study = planned(workflow)
    finished(plan.Study(study.name, study.on, study.file, study.runs[:-1]))
    found = tables(study, outcomes((study,), RESULTS))
    assert row(found.arms, row="rank-4")["test_cases"] == "6"
    compared = row(
        found.comparisons, arm="rank-1", organ=OVERALL, score="dice", convention="strict"
    )
    assert compared["cases"] == 6
    assert any("rank-4: 1 of 3 runs are to do" in note for note in found.notes)


def test_folds_are_no_other_work_than_the_studys_own(workflow):
    write(workflow / "presets" / "mine.yaml", {"train": {"workers": 2}})
    assert objections(planned(workflow, ("mine",))) == {}


def test_cases_of_a_subject_are_resampled_together():
    """Six subjects of two equal cases have the interval of six cases; five have none."""
    by_subject = np.linspace(0.2, 0.9, 6) ** 2
    cases = tuple(f"{subject}{scan}" for subject in "abcdef" for scan in "12")
    values = np.repeat(by_subject, 2)[None, :, None, None]
    subjects = tuple(case[0] for case in cases)
    found = estimate(Scores(((1, 1),), cases, values, subjects))
    mean, low, high = mean_intervals(by_subject[:, None, None])
    for name, expected in (("mean", mean), ("low", low), ("high", high)):
        np.testing.assert_allclose(getattr(found, name), expected)
    assert Scores(((1, 1),), cases, values, subjects).over == "subjects"
    assert found.cases[0, 0] == 12 and found.p[0, 0] == 2.0**-5
    five = estimate(Scores(((1, 1),), cases[:10], values[:, :10], subjects[:10]))
    assert math.isnan(five.low[0, 0]) and five.cases[0, 0] == 10

"""Study files, the runs that they stand for, and their places."""

from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.studies import files, plan
from tests.pipeline.studies.conftest import AGAIN, RANKS, write

SHIPPED = Path(__file__).resolve().parents[3] / "workflow" / "studies"


def study(workflow: Path, **changes) -> None:
    write(workflow / "studies" / "ranks.yaml", RANKS | changes)
    plan.load.cache_clear()


def test_runs_are_arms_by_draws_by_seeds(workflow):
    (found,) = plan.load("ranks")
    assert [run.name for run in found.runs] == [
        "rank-1/draw-7-seed-1",
        "rank-1/draw-7-seed-2",
        "rank-4/draw-7-seed-1",
        "rank-4/draw-7-seed-2",
    ]
    run = found.runs[1]
    assert run.label == "ranks-rank-1-d7-s2"
    assert (run.params.train.seed, run.params.split.seed, run.params.train.lora_rank) == (2, 7, 1)
    places = run.places(Path("results"))
    assert places["train"] == Path("results/ranks/rank-1/draw-7-seed-2/train")
    assert places["split"].parent == places["prepare"].parent


def test_layers_lie_in_their_order(workflow):
    """Presets, params, what it is run on, the twin's params, the arm, the twin's arm, seeds."""
    study(
        workflow,
        params={"train": {"epochs": 2, "batch_size": 2, "lora_rank": 2, "log_every": 2}},
        phantoms={
            "params": {"train": {"batch_size": 3, "lora_rank": 3}},
            "arms": {"rank-4": {"train": {"log_every": 4}}},
        },
    )
    here, there = plan.load("ranks")[0].runs[-1], plan.load("ranks", ("phantoms",))[0].runs[-1]
    values = [
        (r.params.train.epochs, r.params.train.batch_size, r.params.train.lora_rank)
        for r in (here, there)
    ]
    assert values == [(2, 2, 4), (3, 3, 4)]
    assert (here.params.train.log_every, there.params.train.log_every) == (2, 4)


def test_a_twin_has_fewer_runs_and_a_folder_of_its_own(workflow):
    study(workflow, seeds=[1, 2, 3], draws=[1, 2])
    (twin,) = plan.load("ranks", ("phantoms",))
    assert {(run.draw, run.seed) for run in twin.runs} == {(1, 1), (1, 2)}
    assert twin.folder == "ranks-on-phantoms"
    assert plan.load("ranks")[0].folder == "ranks"


def test_equal_work_has_one_doer_across_studies(workflow):
    write(workflow / "studies" / "again.yaml", AGAIN)
    runs = [run for study in plan.load_all() for run in study.runs]
    assert len(runs) == 6
    assert [run.name for run in plan.doers(runs).values()] == [
        "four/draw-7-seed-1",
        "four/draw-7-seed-2",
        "rank-1/draw-7-seed-1",
        "rank-1/draw-7-seed-2",
    ]


def test_a_collection_is_its_studies(workflow):
    write(workflow / "studies" / "all.yaml", {"title": "All", "studies": ["ranks"]})
    assert [study.name for study in plan.load("all")] == ["ranks"]
    assert [study.name for study in plan.load_all()] == ["ranks"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"seeds": []}, "seeds"),
        ({"reference": "rank-2"}, "reference: there is no arm rank-2; the arms are rank-1, rank-4"),
        ({"published": {"x": {"dice": 80.0}}}, "published: there is no arm x"),
        ({"published": {"rank-1": {"dice": 0.8, "hd": 1}}}, "published.rank-1.hd: unknown key"),
        ({"arms": {"../up": {}}}, "arms"),
        ({"arms": {"a": {"train": {"lora": 1}}}, "reference": "a"}, "arms.a: train.lora: unknown"),
        ({"presets": ["none"]}, "there is no such parameter file"),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_before_anything_runs(workflow, changes, sentence):
    study(workflow, **changes)
    with pytest.raises(UserError) as refused:
        plan.load("ranks")
    assert sentence in "\n".join(refused.value.problems)


def test_problems_of_all_arms_come_at_once(workflow):
    study(workflow, arms={name: {"train": {"lora_rank": -1}} for name in "ab"}, reference="a")
    with pytest.raises(UserError) as refused:
        plan.load("ranks")
    assert [problem.split(": ")[1] for problem in refused.value.problems] == ["arms.a", "arms.b"]


@pytest.mark.parametrize("text", ["ranks", "ranks/rank-1", "ranks/rank-1/draw-7-seed-9", "x/../y"])
def test_a_run_that_there_is_not_is_refused(workflow, text):
    with pytest.raises(UserError):
        plan.find(text)


@pytest.mark.parametrize("on", [(), (files.PHANTOMS,)], ids=["real", "phantoms"])
@pytest.mark.parametrize("name", files.names(SHIPPED))
def test_shipped_studies_can_be_run(name, on):
    runs = [run for study in plan.load(name, on, SHIPPED) for run in study.runs]
    assert len({(run.study, run.name) for run in runs}) == len(runs) > 0
    assert all(run.params.dataset.name == "phantom" for run in runs) == bool(on)


@pytest.mark.parametrize(
    "name", ["first-model", "folds", "labels-cpu", "pretraining", "second-decoder"]
)
@pytest.mark.parametrize("model", ["unet", "hsam"])  # what `hsam init` chooses, by the data
def test_studies_for_a_cpu_take_ones_own_data(tmp_path, name, model):
    mine = {"dataset": {"name": "nnunet_ts", "root": "mine"}, "train": {"model": model}}
    write(tmp_path / "my.yaml", mine)
    (found,) = plan.load(name, (str(tmp_path / "my.yaml"),), SHIPPED)
    models = {run.arm: run.params.train.model for run in found.runs}
    assert models[found.file.reference] == "hsam"
    assert all(models[arm] == arm for arm in ("unet", "samed") if arm in models)


def test_published_numbers_are_those_of_the_supplement():
    """Tables 9 to 11 of the supplement, last rows, and table 11's mean over its organs."""
    table = files.read("table11", SHIPPED).published
    assert len(table) == 8
    for numbers in table.values():
        assert len(numbers.organs) == 8
        assert sum(numbers.organs.values()) / 8 == pytest.approx(numbers.dice, abs=0.02)
    assert files.read("table10", SHIPPED).published["rank-4"].hd95 == 15.54
    assert files.read("table9", SHIPPED).published["hsam"].dice == 79.36

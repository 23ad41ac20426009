"""Arms with a search: one for all seeds of a draw, which are trained with what it found."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.core import files, run_folder
from pipeline.reporting.study_table import main_table
from pipeline.studies import plan
from pipeline.studies.fanout import Fanout
from pipeline.studies.outcomes import Outcome, outcomes
from pipeline.studies.plan import Run
from pipeline.studies.sheets import sheets
from pipeline.studies.tables import tables
from tests.pipeline.studies.conftest import RANKS, write
from tests.pipeline.studies.outputs import RESULTS, finish
from tests.pipeline.test_cli import hsam, refused

SEARCH = {"trials": 2, "epochs": 2, "space": {"learning_rate": [0.001, 0.0025]}}
BEST = '{"train": {"learning_rate": 0.001, "augment": {"noise": 0.25}}}\n'


@pytest.fixture
def runs(workflow) -> tuple[Run, ...]:
    """Runs of a study that tunes one of two arms, with two draws and two seeds."""
    arms = {"tuned": {"train": {"lora_rank": 2}, "search": SEARCH}, "plain": {}}
    content = RANKS | {"arms": arms, "draws": [7, 8], "reference": "tuned"}
    write(workflow / "studies" / "ranks.yaml", content)
    plan.load.cache_clear()
    return plan.load("ranks")[0].runs


def test_an_arm_searches_once_a_draw(runs):
    searches = {run.name: str(run.places(RESULTS)["search"]) for run in runs}
    for draw in (7, 8):
        for seed in (1, 2):
            first = f"results/ranks/tuned/draw-{draw}-seed-1/search"
            assert searches[f"tuned/draw-{draw}-seed-{seed}"] == first
            own = f"results/ranks/plain/draw-{draw}-seed-{seed}/search"
            assert searches[f"plain/draw-{draw}-seed-{seed}"] == own


def test_snakemake_has_every_seed_wait_for_the_one_search(runs):
    fanout = Fanout(())
    best = {run.name: fanout.inputs("train", run)[2:] for run in runs}
    first = "results/ranks/tuned/draw-7-seed-1/search/best.yaml"
    assert best["tuned/draw-7-seed-1"] == best["tuned/draw-7-seed-2"] == [first]
    assert best["plain/draw-7-seed-1"] == []


def test_a_run_tuned_by_another_seed_is_other_work(workflow, runs):
    """Of two studies that begin with other seeds, the second seed is trained with other values."""
    arms = {"tuned": {"train": {"lora_rank": 2}, "search": SEARCH}}
    content = RANKS | {"arms": arms, "draws": [7], "seeds": [2, 1], "reference": "tuned"}
    write(workflow / "studies" / "turned.yaml", content)
    mine = next(run for run in runs if run.name == "tuned/draw-7-seed-2")
    theirs = plan.find("turned/tuned/draw-7-seed-2")
    assert mine.params == theirs.params
    assert mine.work != theirs.work


def test_a_copy_of_a_run_has_its_search_too(workflow, runs):
    """The search is part of what makes a run count as finished."""
    shutil.copyfile(workflow / "studies" / "ranks.yaml", workflow / "studies" / "zeta.yaml")
    fanout = Fanout(())
    copy = fanout.run("zeta", "tuned/draw-7-seed-2")
    assert fanout.inputs("train", copy) == [
        "results/ranks/tuned/draw-7-seed-2/train/model.safetensors",
        "results/zeta/tuned/draw-7-seed-1/search/best.yaml",
    ]
    first = fanout.run("zeta", "tuned/draw-7-seed-1")
    assert fanout.inputs("search", first) == ["results/ranks/tuned/draw-7-seed-1/search/best.yaml"]


def test_only_the_first_seed_is_searched_for(workflow, runs):
    message = refused(hsam("search", "--study", "ranks/tuned/draw-8-seed-2", cwd=workflow.parent))
    assert "hsam search --study ranks/tuned/draw-8-seed-1 does" in message
    # its own search is refused for want of data alone
    message = refused(hsam("search", "--study", "ranks/tuned/draw-8-seed-1", cwd=workflow.parent))
    assert "manifest.parquet" in message


def trained(run: Run, best: str | None) -> None:
    """Outputs of a search, and the training's record of the values it took."""
    places = run.places(RESULTS)
    if best is not None:
        files.write_text(places["search"] / "best.yaml", best)
    path = places["train"] / run_folder.PROVENANCE
    used = {"inputs": {"search": files.sha256(places["search"] / "best.yaml")}}
    files.write_json(path, files.read_json(path) | used)


def of_tuned() -> list[Outcome]:
    (study,) = plan.load("ranks")
    tuned = tuple(run for run in study.runs if run.arm == "tuned" and run.draw == 7)
    return outcomes((replace(study, runs=tuned),), RESULTS)


def test_a_training_is_one_of_the_search_that_is_there(workflow, runs):
    finish(plan.load("ranks")[0], lambda run, *_: 0.5)
    assert [outcome.missing for outcome in of_tuned()] == ["its search is gone"] * 2
    for outcome in of_tuned():
        trained(outcome.run, BEST)
    assert [outcome.missing for outcome in of_tuned()] == [None, None]
    first = of_tuned()[0].run
    trained(first, '{"train": {"learning_rate": 0.0025}}\n')
    why = "trained with what another search found, or with none"
    assert [outcome.missing for outcome in of_tuned()] == [None, why]


def test_tables_say_what_was_chosen(workflow, runs):
    (study,) = plan.load("ranks")
    finish(study, lambda run, *_: 0.5)
    for run in study.runs:
        if run.arm == "tuned":
            trained(run, BEST)
    found = tables(study, outcomes((study,), RESULTS))
    chosen = "learning_rate 0.001, augment.noise 0.25"
    assert {row["row"]: row["tuned"] for row in found.arms} == {"tuned": chosen, "plain": None}
    below = {row["cells"][0]["text"]: row["cells"][0]["below"] for row in main_table(found)["rows"]}
    assert below == {"tuned": [chosen], "plain": []}
    settings = next(sheet for sheet in sheets(found) if sheet.name == "settings")
    column = settings.header.index("tuned")
    assert {row[0]: row[column] for row in settings.rows} == {"tuned": chosen, "plain": "–"}


def test_the_shipped_rivals_are_tuned_alike_whatever_they_are_run_on():
    folder = Path(__file__).resolve().parents[3] / "workflow" / "studies"
    for on in ((), ("la-4",), ("litemedsam-cpu",), ("la-4", "litemedsam-cpu"), ("phantoms",)):
        (study,) = plan.load("rivals", on, folder)
        trained = [run.params for run in study.runs if run.predictions is None]
        for read in (
            lambda params: params.search,
            lambda params: (params.split.validation, params.train.keep),
            lambda params: (params.train.epochs, params.train.batch_size, params.train.image_size),
        ):
            assert len({str(read(params)) for params in trained}) == 1
        params = trained[0]
        assert params.search.trials == len(params.search.space["learning_rate"])
        # a trial is a whole training, but for the small twin
        assert on == ("phantoms",) or params.trial_epochs() == params.train.epochs
        assert params.train.validate_every and params.split.validation
        assert {run.searcher for run in study.runs if run.predictions is None} == {1}

"""The study that workers share, with trials that cost nothing."""

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.core.params.load import validate
from pipeline.training.search_study import Study
from pipeline.training.trials import Outcome, Pruned
from tests.pipeline.training import postgres

WORKERS, EACH = 8, 20
# not forked: a fork would share the connections of a database
SPAWN = multiprocessing.get_context("spawn")


def opened(folder: Path, **search) -> Study:
    params = validate({"search": search}, "test")
    train = params.train.model_dump(mode="json")
    return Study(folder, params.search, params.trial_epochs(), 1, train)


def work(folder: Path, worker: int, search: dict, pause: float = 0.0) -> None:
    """Run trials until none is left; the Dice is the Dice weight."""
    study = opened(folder, **search)
    study.bury(worker)
    while (asked := study.claim(worker)) is not None:
        time.sleep(pause)
        dice = asked.values["dice_weight"]
        try:
            asked.report(4, dice)
            study.finish(asked, Outcome(dice), 1.0, "CPU")
        except Pruned as stop:
            study.finish(asked, Outcome(stop.dice, str(stop), pruned=True), 1.0, "CPU")


def work_unlocked(folder: Path, worker: int, search: dict, pause: float) -> None:
    """The same on a host whose locks reach no other."""
    Study._locked = lambda study: nullcontext()
    work(folder, worker, search, pause)


def crowd(folder: Path, search: dict, pause: float = 0.0, target: Callable = work) -> list:
    workers = [
        SPAWN.Process(target=target, args=(folder, number, search, pause))
        for number in range(1, WORKERS + 1)
    ]
    for worker in workers:
        worker.start()
    return workers


def check_all_are_there_once(folder: Path, search: dict) -> None:
    for worker in crowd(folder, search):
        worker.join()
        assert worker.exitcode == 0
    trials = opened(folder, **search).trials()
    assert [trial.number for trial in trials] == list(range(WORKERS * EACH))
    assert sorted(trial.study_number for trial in trials) == list(range(WORKERS * EACH))
    assert {trial.state for trial in trials} == {"complete", "pruned"}
    assert len({trial.worker for trial in trials}) > 1


def test_eight_workers_lose_no_trial_and_run_none_twice(tmp_path):
    check_all_are_there_once(tmp_path, {"trials": WORKERS * EACH})


NO_KNOBS = dict.fromkeys(("lora_rank", "lambda_start", "dice_weight"))


def test_no_setting_is_tried_twice(tmp_path):
    space = {**NO_KNOBS, "dice_weight": [0.1 * n for n in range(1, 5)], "lora_rank": [1, 4, 8, 16]}
    few = {"trials": 12, "space": space}
    work(tmp_path, 1, few)
    tried = [tuple(trial.values.items()) for trial in opened(tmp_path, **few).trials()]
    assert len(tried) == len(set(tried)) == 12
    work(tmp_path, 2, few | {"trials": 16})
    assert (
        len({tuple(t.values.items()) for t in opened(tmp_path, trials=16, space=space).trials()})
        == 16
    )


def test_a_search_ends_where_all_settings_are_tried(tmp_path):
    search = {
        "trials": 8,
        "space": {**NO_KNOBS, "dice_weight": [0.5, 0.7], "lora_rank": {"low": 1, "high": 3}},
    }
    for worker in crowd(tmp_path, search):
        worker.join()
    study = opened(tmp_path, **search)
    found = {(t.values["dice_weight"], t.values["lora_rank"]) for t in study.trials()}
    assert found == {(dice, rank) for dice in (0.5, 0.7) for rank in (1, 2, 3)}
    assert study.total == len(study.trials()) == 6 and not study.is_left()


@pytest.fixture
def database(monkeypatch):
    """`search.storage` of a PostgreSQL server, whose password is in the environment."""
    if postgres.programs() is None:
        pytest.skip("no PostgreSQL server is installed (apt-get install postgresql)")
    if find_spec("psycopg") is None and find_spec("psycopg2") is None:
        pytest.skip("no driver of PostgreSQL is installed (pip install 'psycopg[binary]')")
    with postgres.server() as (host, port):
        monkeypatch.setenv("HSAM_TEST_PASSWORD", postgres.PASSWORD)
        yield f"postgresql://{postgres.USER}:$HSAM_TEST_PASSWORD@{host}:{port}/postgres"


def test_they_do_so_on_postgresql_and_say_no_password(database, tmp_path, monkeypatch):
    search = {"trials": WORKERS * EACH, "storage": database}
    check_all_are_there_once(tmp_path, search)
    assert opened(tmp_path, **search).dashboard == f'optuna-dashboard "{database}"'
    monkeypatch.setenv("HSAM_TEST_PASSWORD", "wrong&secret")
    with pytest.raises(UserError, match="search.storage: postgresql.* can't be used") as caught:
        opened(tmp_path, **search)
    assert "wrong" not in str(caught.value) and "authentication failed" in str(caught.value)
    monkeypatch.delenv("HSAM_TEST_PASSWORD")
    with pytest.raises(UserError, match="variable HSAM_TEST_PASSWORD, which is not set; export"):
        opened(tmp_path, **search)


def test_sqlite_is_a_storage_too(tmp_path):
    search = {"trials": 4, "storage": f"sqlite:///{tmp_path}/study.db"}
    (tmp_path / "a").mkdir()
    work(tmp_path / "a", 1, search)
    assert len(opened(tmp_path / "a", **search).trials()) == 4
    assert not (tmp_path / "a" / "study.journal").exists()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://127.0.0.1:1", "can't be used"),
        ("sqlite:////no/such/folder/study.db", "unable to open database file"),
    ],
)
def test_a_storage_that_is_not_there_is_refused(tmp_path, url, reason):
    with pytest.raises(UserError, match=f"search.storage: .*{reason}"):
        opened(tmp_path, storage=url)


def test_killed_workers_cost_no_trial_but_their_own(tmp_path):
    chance, search = random.Random(0), {"trials": 60}
    workers, study = crowd(tmp_path, search, pause=0.4), opened(tmp_path, **search)
    while not study.trials():
        time.sleep(0.05)
    for worker in workers:
        time.sleep(chance.uniform(0.0, 0.2))
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    study = opened(tmp_path, **search)
    buried, trials = study.bury(), study.trials()
    killed = [trial for trial in trials if trial.state == "failed"]
    assert 0 < buried == len(killed) <= WORKERS
    assert {trial.reason for trial in killed} == {"its process was killed; tried again"}
    work(tmp_path, 1, search)
    trials = opened(tmp_path, **search).trials()
    assert Counter(t.number for t in trials if t.state != "failed") == Counter(range(60))
    assert [trial for trial in trials if trial.state == "failed"] == killed
    second = [trial for trial in trials if trial.attempt == 2]
    # one that was killed while it was taking its trial had some of the values
    tried = {trial.number: trial.values for trial in second}
    assert all(trial.values.items() <= tried[trial.number].items() for trial in killed)


def test_hosts_that_do_not_see_each_others_locks_run_no_trial_twice(tmp_path):
    search = {"trials": 60}
    opened(tmp_path, **search)
    for worker in crowd(tmp_path, search, target=work_unlocked):
        worker.join()
        assert worker.exitcode == 0
    trials = opened(tmp_path, **search).trials()
    assert [trial.number for trial in trials] == list(range(60))
    assert "failed" not in {trial.state for trial in trials}


def test_a_torn_line_is_cut_off_while_others_go_on(tmp_path):
    study = opened(tmp_path, trials=3)
    first = study.claim(1)
    with open(tmp_path / "study.journal", "ab") as file:
        file.write(b'{"op_code": 5, "trial')
    second = study.claim(2)
    for asked in (first, second):
        study.finish(asked, Outcome(0.5), 1.0, "CPU")
    assert [trial.number for trial in opened(tmp_path, trials=3).trials()] == [0, 1]


def test_more_workers_and_more_trials_go_on(tmp_path):
    work(tmp_path, 1, {"trials": 5})
    before = opened(tmp_path, trials=5).trials()
    work(tmp_path, 2, {"trials": 12})
    after = opened(tmp_path, trials=12).trials()
    assert after[:5] == before and [trial.worker for trial in after[5:]] == [2] * 7


def test_one_worker_tries_the_same_again(tmp_path):
    found = []
    for name in "ab":
        (tmp_path / name / "study").mkdir(parents=True)
        work(tmp_path / name / "study", 1, {"trials": 30})
        trials = opened(tmp_path / name / "study", trials=30).trials()
        found.append([(trial.values, trial.value, trial.state) for trial in trials])
    assert found[0] == found[1]


def test_what_is_left_is_shared_by_those_at_work_and_ends_with_the_hours(tmp_path):
    study = opened(tmp_path, trials=4)
    assert study.left() == (4, 0.0)
    first, second = study.claim(1), study.claim(2)
    study.finish(first, Outcome(0.5), 100.0, "CPU")
    assert study.left() == (3, 150.0)  # worker 2 is at work too
    study.finish(second, Outcome(None, "a loss of NaN"), 200.0, "CPU")
    assert study.left() == (2, 300.0)
    assert opened(tmp_path, trials=4, hours=0.1).left() == (2, 60.0)
    for _ in range(2):  # killed twice, it isn't tried again
        assert study.left()[0] == 2
        assert study.claim(1).number == 2
        study.bury()
    assert study.left() == (1, 150.0)
    study.finish(study.claim(1), Outcome(0.6), 100.0, "CPU")
    assert study.left() == (0, 0.0)


def test_importances_say_what_matters(tmp_path):
    assert opened(tmp_path, trials=30, pruner="none").importances() == {}
    work(tmp_path, 1, {"trials": 30, "pruner": "none"})
    found = opened(tmp_path, trials=30, pruner="none").importances()
    assert next(iter(found)) == "dice_weight" and sum(found.values()) == pytest.approx(1)


def test_hyperband_prunes_too(tmp_path):
    work(tmp_path, 1, {"trials": 40, "pruner": "hyperband", "validate_every": 1})
    trials = opened(tmp_path, trials=40, pruner="hyperband", validate_every=1).trials()
    assert {trial.state for trial in trials} == {"complete", "pruned"}

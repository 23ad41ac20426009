import csv
import os
import re
import signal
import subprocess
import sys
from typing import Any

import pandas as pd
import pytest

from pipeline.core.errors import UserError
from pipeline.core.params.load import overlay, read_yaml, validate
from pipeline.core.params.render import render
from pipeline.shards.roles import SplitFile, read_split, write_split
from pipeline.stages import search, split
from pipeline.training import objective
from tests.pipeline.conftest import make_params

KNOBS = ["lora_rank", "dice_weight", "lambda_start"]
TINY = {"image_size": 32, "batch_size": 16, "validate_every": 0}


@pytest.fixture(scope="module")
def inputs(prepared_phantoms, phantom_params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    dataset = phantom_params.dataset.model_dump()
    params = make_params(dataset=dataset, train=TINY, search={"trials": 3, "epochs": 1})
    split.run(params, prepared_phantoms, folder / "split", folder / "runs")
    return params, prepared_phantoms, folder / "split"


def table(folder) -> list[dict[str, str]]:
    """The trials as published, without what differs between two runs."""
    rows = list(csv.DictReader((folder / "search" / "trials.csv").open()))
    return [
        {key: row[key] for key in row if key not in ("seconds", "study_number")} for row in rows
    ]


def run(inputs, folder, **options) -> list[dict[str, str]]:
    search.run(*inputs, folder / "search", folder / "runs", device="cpu", **options)
    return table(folder)


@pytest.fixture(scope="module")
def searched(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    return folder, run(inputs, folder)


def test_the_best_trial_becomes_an_overlay(searched):
    folder, trials = searched
    assert len(trials) == 3
    best = max(trials, key=lambda trial: float(trial["value"]))
    found = read_yaml(folder / "search" / "best.yaml")["train"]
    assert list(found) == KNOBS
    assert {knob: str(found[knob]) for knob in KNOBS} == {knob: best[knob] for knob in KNOBS}


def test_the_table_says_what_a_trial_cost_and_where(searched):
    rows = pd.read_parquet(searched[0] / "search" / "trials.parquet")
    assert list(rows["number"]) == [0, 1, 2] and set(rows["device"]) == {"CPU"}
    assert (rows["seconds"] > 0).all() and set(rows["worker"]) == {1}
    pd.testing.assert_frame_equal(
        rows,
        pd.read_csv(searched[0] / "search" / "trials.csv", keep_default_na=False),
        check_dtype=False,
    )


def test_trials_stay_in_their_space_and_the_first_tries_the_parameters(inputs, searched):
    space, train = inputs[0].search.space, inputs[0].train
    for trial in searched[1]:
        assert int(trial["lora_rank"]) in space["lora_rank"]
        for knob in KNOBS[1:]:
            assert space[knob]["low"] <= float(trial[knob]) <= space[knob]["high"]
    first = {knob: float(searched[1][0][knob]) for knob in KNOBS}
    assert first == {knob: getattr(train, knob) for knob in KNOBS}


def changed(inputs, **blocks):
    """The inputs with some parameters changed."""
    params, *folders = inputs
    values = overlay(params.model_dump(mode="json"), blocks)
    return validate(values, "test"), *folders


@pytest.fixture
def trained(monkeypatch):
    """The trials that are trained, by number; `trained.actions` has what to do in the n-th call."""
    fit = objective.fit

    class Trained(list):
        actions: dict = {}
        scalers: list = []
        during: Any = staticmethod(lambda: None)

    calls = Trained()

    def watched(fabric, model, slices, settings, **more):
        calls.append(int(more["title"].split()[1]))
        calls.scalers.append(fabric.strategy.precision)
        calls.during()
        if error := calls.actions.get(len(calls)):
            raise error
        return fit(fabric, model, slices, settings, **more)

    calls.actions, calls.scalers = {}, []
    monkeypatch.setattr(objective, "fit", watched)
    return calls


def journal(folder):
    (found,) = (folder / "runs").glob("*/study.journal")
    return found


@pytest.mark.parametrize("torn", [b"", b'{"op_code": 4, "wor'])
def test_an_interrupted_search_goes_on_and_finds_the_same(
    inputs, searched, tmp_path, trained, torn
):
    trained.actions[2] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(inputs, tmp_path)
    journal(tmp_path).write_bytes(journal(tmp_path).read_bytes() + torn)
    assert run(inputs, tmp_path) == searched[1]
    assert trained == [0, 1, 1, 2]


def test_a_damaged_journal_is_refused_by_its_line(inputs, tmp_path):
    one = changed(inputs, search={"trials": 1})
    run(one, tmp_path)
    lines = journal(tmp_path).read_bytes().splitlines(keepends=True)
    journal(tmp_path).write_bytes(b"".join([*lines[:2], b"\xff\n", *lines[3:]]))
    with pytest.raises(UserError, match="study.journal: damaged in line 3, .* search anew"):
        run(inputs, tmp_path)


def test_more_trials_go_on_with_the_finished_ones(inputs, searched, tmp_path, trained):
    few = run(changed(inputs, search={"trials": 2}), tmp_path)
    assert run(inputs, tmp_path) == searched[1] and few == searched[1][:2]
    assert run(changed(inputs, search={"trials": 2}), tmp_path) == few
    assert trained == [0, 1, 2]


@pytest.mark.parametrize(
    "blocks",
    [
        {"train": {"log_every": 7, "checkpoint_minutes": 3.0, "cache_mib": 1, "workers": 1}},
        {"train": {"validate_every": 1, "keep": "best", "epochs": 9}},
        {"search": {"workers": 2, "hours": 9.0}},
        {"search": {"epochs": None}, "train": {"epochs": 1}},
        {"base": {"seed": 5}, "train": {"seed": 42}, "search": {"seed": 42}},
    ],
)
def test_what_changes_no_trial_runs_none_again(inputs, searched, trained, blocks):
    folder, trials = searched
    assert run(changed(inputs, **blocks), folder) == trials
    assert trained == []
    provenance = read_yaml(folder / "search" / "provenance.json")["params"]
    assert all(provenance[name].items() >= block.items() for name, block in blocks.items())


@pytest.mark.parametrize(
    "blocks",
    [
        {"train": {"learning_rate": 0.001}},
        {"search": {"epochs": 2}},
        {"search": {"epochs": None}, "train": {"epochs": 2}},
        {"train": {"seed": 1}},
        {"search": {"space": {"dice_weight": {"low": 0.92}}}, "train": {"dice_weight": 0.93}},
    ],
)
def test_what_changes_a_trial_runs_it_again(inputs, searched, tmp_path, trained, blocks):
    folder, trials = searched
    one = changed(inputs, search={"trials": 1})
    (before,) = run(one, tmp_path)
    assert before == trials[0]
    (after,) = run(changed(one, **blocks), tmp_path)
    assert trained == [0, 0] and after["value"] != before["value"]


def test_the_searchs_own_seed_changes_what_is_tried(inputs, searched, tmp_path):
    found = run(changed(inputs, search={"trials": 2, "seed": 2**32 - 1}), tmp_path)
    assert found[0] == searched[1][0]
    assert found[1]["dice_weight"] != searched[1][1]["dice_weight"]


NAN = UserError("train: the loss is nan at epoch 0, step 1; lower train.learning_rate.")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NAN, "the loss is nan"),
        (MemoryError(), "out of memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            "out of memory",
        ),
    ],
)
def test_a_failed_trial_is_recorded_and_the_next_one_is_another(
    inputs, tmp_path, trained, capsys, error, reason
):
    trained.actions[1] = error
    trials = run(inputs, tmp_path)
    assert [trial["state"] for trial in trials] == ["failed", "complete", "complete"]
    assert reason in trials[0]["reason"] and trials[0]["value"] == ""
    assert len({trial["dice_weight"] for trial in trials}) == 3
    told = capsys.readouterr().err
    assert f"search: trial 1/3: failed: {trials[0]['reason']}" in told
    assert re.findall("; about .* for the (.) left$", told, re.MULTILINE) == ["2", "1"]
    assert run(inputs, tmp_path) == trials
    assert trained == [0, 1, 2]


def test_only_failed_trials_are_refused_in_one_sentence(inputs, tmp_path, trained):
    trained.actions = {1: NAN, 2: NAN}
    two = changed(inputs, search={"trials": 2})
    for _ in range(2):  # the same again asks for no further trial
        with pytest.raises(UserError, match="2 of 2 trials failed .* with: train: the"):
            run(two, tmp_path)
        assert trained == [0, 1]
    assert not (tmp_path / "search").exists()
    assert [trial["state"] for trial in run(inputs, tmp_path)] == ["failed", "failed", "complete"]


def test_a_loss_of_nan_fails_a_trial(inputs, tmp_path):
    steep = {"learning_rate": 1.0, "warmup_iterations": 0, "betas": [0.999, 0.0], "log_every": 1}
    with pytest.raises(UserError, match="1 of 1 trials failed .*: train: the loss is nan at epoch"):
        run(changed(inputs, train=steep, search={"trials": 1, "epochs": 3}), tmp_path)


def test_an_error_that_is_not_the_trials_own_is_not_recorded(inputs, searched, tmp_path, trained):
    trained.actions[1] = RuntimeError("a mistake in the program")
    with pytest.raises(RuntimeError, match="a mistake"):
        run(inputs, tmp_path)
    assert run(inputs, tmp_path) == searched[1]


def test_parameters_that_no_trial_could_have_are_no_failed_trial(inputs, tmp_path, trained):
    with pytest.raises(UserError, match="train.precision: fp16 needs a GPU"):
        run(changed(inputs, train={"precision": "fp16"}), tmp_path)
    assert trained == [] and not (tmp_path / "search").exists()


def test_every_trial_has_a_gradient_scaler_of_its_own(inputs, tmp_path, trained):
    run(changed(inputs, search={"trials": 2}), tmp_path)
    first, second = trained.scalers
    assert first is not second


def with_roles(inputs, folder, change):
    """The inputs with another split."""
    params, prepared, old = inputs
    found = read_split(old / "split.parquet")
    roles = {key: change(key, role) for key, role in found.roles.items()}
    write_split(folder / "other" / "split.parquet", SplitFile(found.name, roles))
    return params, prepared, folder / "other"


def test_a_split_without_validation_slices_is_refused(inputs, tmp_path):
    without = with_roles(
        inputs, tmp_path, lambda _, role: "unused" if role == "validation" else role
    )
    with pytest.raises(UserError, match="search.trials: trials are scored on .* no validation sl"):
        run(without, tmp_path)
    assert not (tmp_path / "runs").exists()
    assert run(changed(without, search={"trials": 0}), tmp_path) == []


def test_a_knob_without_a_range_is_not_searched(inputs, tmp_path):
    one = {"trials": 1, "space": {"dice_weight": None, "lambda_start": None}}
    (trial,) = run(changed(inputs, search=one), tmp_path)
    assert not {"dice_weight", "lambda_start"} & set(trial)
    found = read_yaml(tmp_path / "search" / "best.yaml")["train"]
    assert found == {"lora_rank": int(trial["lora_rank"])}


def test_a_key_inside_a_mapping_is_searched(inputs, tmp_path):
    space = dict.fromkeys(KNOBS) | {
        "augment.noise": {"low": 0.1, "high": 0.2},
        "clip_norm": [None, 1.0],
        "micro_batch": ["auto", 2],
        "batch_size": {"low": 4, "high": 16, "log": True},
    }
    trials = run(changed(inputs, search={"trials": 2, "space": space}), tmp_path)
    assert all(0.1 <= float(trial["augment.noise"]) <= 0.2 for trial in trials)
    assert all(4 <= int(trial["batch_size"]) <= 16 for trial in trials)
    best = read_yaml(tmp_path / "search" / "best.yaml")
    found = changed(inputs, **best)[0].train
    assert str(found.augment.noise) in {trial["augment.noise"] for trial in trials}


def test_without_trials_nothing_is_laid_over(inputs, tmp_path):
    params, prepared, roles = inputs
    none = params.model_copy(update={"search": params.search.model_copy(update={"trials": 0})})
    assert run((none, prepared, roles), tmp_path) == []
    assert read_yaml(tmp_path / "search" / "best.yaml") == {}


def test_values_that_do_not_go_together_fail_a_trial(inputs, tmp_path):
    space = dict.fromkeys(KNOBS) | {"image_size": [32, 128], "encoder_size": [None, 32]}
    trials = run(changed(inputs, search={"trials": 4, "space": space, "seed": 1}), tmp_path)
    failed = [trial for trial in trials if trial["state"] == "failed"]
    assert failed and len(failed) < 4
    assert all("train.image_size: for vit_tiny" in trial["reason"] for trial in failed)


def test_a_bad_trial_is_pruned_and_is_never_the_best(inputs, tmp_path, monkeypatch):
    dice = iter([0.5, 0.9] * 5 + [0.4])
    monkeypatch.setattr(objective.Validation, "__call__", lambda *_: {"liver": next(dice)})
    trials = run(changed(inputs, search={"trials": 6, "epochs": 2, "validate_every": 1}), tmp_path)
    assert [trial["state"] for trial in trials] == ["complete"] * 5 + ["pruned"]
    last = trials[-1]
    assert (last["value"], last["epochs"]) == ("0.4", "1")
    assert "after epoch 1, where others were better" in last["reason"]


def test_no_trial_begins_when_the_hours_are_over(inputs, searched, tmp_path, trained):
    assert run(changed(inputs, search={"hours": 1e-9}), tmp_path) == searched[1][:1]
    assert run(inputs, tmp_path) == searched[1] and trained == [0, 1, 2]


def test_workers_share_the_trials(inputs, tmp_path):
    trials = run(changed(inputs, search={"trials": 4}), tmp_path, workers=2)
    assert [trial["number"] for trial in trials] == ["0", "1", "2", "3"]
    assert {trial["state"] for trial in trials} == {"complete"}
    assert {trial["worker"] for trial in trials} == {"1", "2"}


def test_workers_of_other_jobs_leave_nothing_to_do(inputs, searched, tmp_path, trained):
    worker = {"device": "cpu", "worker": 3}
    search.run_worker(*inputs, tmp_path / "runs", **worker)
    assert not (tmp_path / "search").exists() and trained == [0, 1, 2]
    found = run(inputs, tmp_path)
    assert [trial | {"worker": "1"} for trial in found] == searched[1] and trained == [0, 1, 2]
    search.run_worker(*inputs, tmp_path / "runs", **worker)  # all is done


def test_two_workers_of_one_number_are_refused(inputs, tmp_path, trained):
    refused = []

    def second():
        with pytest.raises(UserError) as caught:
            search.run_worker(*inputs, tmp_path / "runs", device="cpu", worker=1)
        refused.append(str(caught.value))

    trained.during = second
    one = changed(inputs, search={"trials": 1})
    search.run_worker(*one, tmp_path / "runs", device="cpu", worker=1)
    assert len(refused) == 1 and "worker 1 is at work here" in refused[0]


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.core.params.load import load
from pipeline.stages import search
from pipeline.training import objective
objective.fit = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
params, prepared, split, runs = map(Path, sys.argv[1:])
search.run_worker(load([params]), prepared, split, runs, device="cpu", worker=2)
"""


def test_a_killed_workers_trial_is_tried_again_once(inputs, tmp_path, trained):
    params, prepared, roles = changed(inputs, search={"trials": 2})
    (tmp_path / "params.yaml").write_text(render(params))
    command = [sys.executable, "-c", KILLED, tmp_path / "params.yaml", prepared, roles]
    for _ in range(2):
        ended = subprocess.run([*command, tmp_path / "runs"], env=os.environ, check=False)
        assert ended.returncode == -signal.SIGKILL
    trials = run((params, prepared, roles), tmp_path)
    found = [(row["number"], row["attempt"], row["state"], row["reason"]) for row in trials]
    assert found == [
        ("0", "1", "failed", "its process was killed; tried again"),
        ("0", "2", "failed", "its process was killed, 2 times"),
        ("1", "1", "complete", ""),
    ]
    assert trials[0]["dice_weight"] == trials[1]["dice_weight"] != trials[2]["dice_weight"]
    assert trained == [1]

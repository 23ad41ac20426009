import csv

import pytest

from pipeline.core.errors import UserError
from pipeline.core.params.load import overlay, read_yaml, validate
from pipeline.shards.roles import SplitFile, read_split, write_split
from pipeline.stages import search, split
from pipeline.training import objective
from tests.pipeline.conftest import make_params

TINY = {"image_size": 32, "batch_size": 16, "validate_every": 0}


@pytest.fixture(scope="module")
def inputs(prepared_phantoms, phantom_params, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    dataset = phantom_params.dataset.model_dump()
    params = make_params(dataset=dataset, train=TINY, search={"trials": 3, "epochs": 1})
    split.run(params, prepared_phantoms, folder / "split", folder / "runs")
    return params, prepared_phantoms, folder / "split"


def run(inputs, folder) -> list[dict[str, str]]:
    search.run(*inputs, folder / "search", folder / "runs", device="cpu")
    return list(csv.DictReader((folder / "search" / "trials.csv").open()))


@pytest.fixture(scope="module")
def searched(inputs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    return folder, run(inputs, folder)


def test_the_best_trial_becomes_an_overlay(searched):
    folder, trials = searched
    assert len(trials) == 3
    best = max(trials, key=lambda trial: float(trial["value"]))
    found = read_yaml(folder / "search" / "best.yaml")["train"]
    assert {knob: str(found[knob]) for knob in search.KNOBS} == {k: best[k] for k in search.KNOBS}


def test_trials_stay_in_their_ranges(inputs, searched):
    ranges = inputs[0].search
    for trial in searched[1]:
        assert int(trial["lora_rank"]) in ranges.lora_rank
        assert ranges.dice_weight[0] <= float(trial["dice_weight"]) <= ranges.dice_weight[1]
        assert ranges.lambda_start[0] <= float(trial["lambda_start"]) <= ranges.lambda_start[1]


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

    calls = Trained()

    def watched(fabric, model, slices, settings, **more):
        calls.append(int(more["title"].split()[1]))
        calls.scalers.append(fabric.strategy.precision)
        if error := calls.actions.get(len(calls)):
            raise error
        return fit(fabric, model, slices, settings, **more)

    calls.actions, calls.scalers = {}, []
    monkeypatch.setattr(objective, "fit", watched)
    return calls


@pytest.mark.parametrize("torn", [b"", b'{"number": 4, "val'])
def test_an_interrupted_search_goes_on_and_finds_the_same(
    inputs, searched, tmp_path, trained, torn
):
    trained.actions[2] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(inputs, tmp_path)
    (journal,) = (tmp_path / "runs").glob("*/journal.jsonl")
    journal.write_bytes(journal.read_bytes() + torn)
    assert run(inputs, tmp_path) == searched[1]
    assert trained == [0, 1, 1, 2]


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff\x00", None])
def test_a_damaged_line_costs_its_own_trial_alone(
    inputs, searched, tmp_path, trained, capsys, damage
):
    run(inputs, tmp_path)
    (journal,) = (tmp_path / "runs").glob("*/journal.jsonl")
    lines = journal.read_bytes().splitlines()
    lines[1] = lines[1].replace(b"0.", b"0.1") if damage is None else damage
    journal.write_bytes(b"\n".join(lines) + b"\n")
    capsys.readouterr()
    more = changed(inputs, search={"trials": 4})
    assert run(more, tmp_path)[:3] == searched[1]
    assert trained == [0, 1, 2, 1, 3]
    assert "1 of 3 lines can't be read" in capsys.readouterr().err


def test_more_trials_go_on_with_the_finished_ones(inputs, searched, tmp_path, trained):
    few = run(changed(inputs, search={"trials": 2}), tmp_path)
    assert run(inputs, tmp_path) == searched[1] and few == searched[1][:2]
    assert run(changed(inputs, search={"trials": 2}), tmp_path) == few
    assert trained == [0, 1, 2]


@pytest.mark.parametrize(
    "blocks",
    [
        {"train": {"log_every": 7, "checkpoint_minutes": 3.0, "cache_mib": 1, "workers": 1}},
        {"train": {"validate_every": 1, "keep": "best", "epochs": 9, "lora_rank": 2}},
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
    [{"train": {"learning_rate": 0.001}}, {"search": {"epochs": 2}}, {"train": {"seed": 1}}],
)
def test_what_changes_a_trial_runs_it_again(inputs, searched, tmp_path, trained, blocks):
    folder, trials = searched
    one = changed(inputs, search={"trials": 1})
    (before,) = run(one, tmp_path)
    assert before == trials[0]
    (after,) = run(changed(one, **blocks), tmp_path)
    assert trained == [0, 0] and after["value"] != before["value"]


def test_the_searchs_own_seed_changes_what_is_tried(inputs, searched, tmp_path):
    (trial,) = run(changed(inputs, search={"trials": 1, "seed": 2**32 - 1}), tmp_path)
    assert trial["dice_weight"] != searched[1][0]["dice_weight"]


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
    assert f"search: trial 1/3: failed: {trials[0]['reason']}" in capsys.readouterr().err
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


def test_an_error_that_is_not_the_trials_own_is_not_recorded(inputs, tmp_path, trained):
    trained.actions[1] = RuntimeError("a mistake in the program")
    with pytest.raises(RuntimeError, match="a mistake"):
        run(inputs, tmp_path)
    assert not list((tmp_path / "runs").glob("*/journal.jsonl"))


def test_parameters_that_no_trial_could_have_are_no_failed_trial(inputs, tmp_path, trained):
    with pytest.raises(UserError, match="train.precision: fp16 needs a GPU"):
        run(changed(inputs, train={"precision": "fp16"}), tmp_path)
    assert trained == [] and not list((tmp_path / "runs").glob("*/journal.jsonl"))


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
    params, prepared, roles = inputs
    one = {"trials": 1, "dice_weight": None, "lambda_start": None}
    params = params.model_copy(update={"search": params.search.model_copy(update=one)})
    (trial,) = run((params, prepared, roles), tmp_path)
    assert (trial["dice_weight"], trial["lambda_start"]) == ("", "")
    found = read_yaml(tmp_path / "search" / "best.yaml")["train"]
    assert found == {"lora_rank": int(trial["lora_rank"])}


def test_without_trials_nothing_is_laid_over(inputs, tmp_path):
    params, prepared, roles = inputs
    none = params.model_copy(update={"search": params.search.model_copy(update={"trials": 0})})
    assert run((none, prepared, roles), tmp_path) == []
    assert read_yaml(tmp_path / "search" / "best.yaml") == {}

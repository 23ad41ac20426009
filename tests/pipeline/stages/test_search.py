import csv
import shutil

import pytest

from pipeline.core.params.load import read_yaml
from pipeline.stages import search, split
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


@pytest.mark.parametrize("torn", [b"", b'{"op_code": 4, "worker'])
def test_an_interrupted_search_goes_on_and_finds_the_same(
    inputs, searched, tmp_path, monkeypatch, torn
):
    fit, calls = search.fit, []

    def killed_in_the_second_trial(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fit(*args, **kwargs)

    monkeypatch.setattr(search, "fit", killed_in_the_second_trial)
    with pytest.raises(KeyboardInterrupt):
        run(inputs, tmp_path)
    (journal,) = (tmp_path / "runs").glob("*/journal.jsonl")
    journal.write_bytes(journal.read_bytes() + torn)
    shutil.copy(journal, f"{journal}.lock")
    trials = run(inputs, tmp_path)
    assert len(calls) == 4  # 3 trials and the one that was killed
    assert trials == searched[1]


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

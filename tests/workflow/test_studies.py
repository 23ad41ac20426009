"""Snakemake runs studies on tiny phantoms, in a copy of the repository."""

import itertools
import json
import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from tests.workflow.conftest import copy_repository, run

TINY = {"dataset": {"phantom": {"cases": 4, "size": 32}}, "search": {"trials": 0}}
PRESET = TINY | {
    "defaults": ["phantom", "_self_"],
    "split": {"slices": 0.5, "validation": 0.0},
    "train": {"image_size": 32, "epochs": 1, "validate_every": 0, "workers": 0},
}
STUDY = {
    "title": "Parts",
    "presets": ["tiny"],
    "arms": {"all": {}, "bare": {"train": {"pixel_decoder": False}}},
    "seeds": [1, 2],
    "draws": [1],
}
# leases pretend devices for real, and lets each training, which is on the CPU, wait for the others
SITE = """
import atexit, os, sys, time
if os.environ.get("PRETEND"):
    from pipeline.core import gpu
    real = gpu.lease
    def lines():
        with open(os.environ["PRETEND"]) as file:
            return file.readlines()
    def note(word, device):
        with open(os.environ["PRETEND"], "a") as file:
            file.write(f"{word} {device}\\n")
    def lease(need, **options):
        for device in real(need, **options):
            if sys.argv[1] == "train":
                note("begin", device)
                atexit.register(note, "end", device)
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        latest = time.monotonic() + 60
        while sys.argv[1] == "train" and time.monotonic() < latest:
            if sum(line.startswith("begin") for line in lines()) == 4:
                break
            time.sleep(0.2)
        return []
    gpu.lease = lease
"""
DEVICES = 4


def study(folder: Path, name: str, content: dict) -> None:
    with (folder / "workflow" / "studies" / f"{name}.yaml").open("w") as file:
        YAML(typ="safe").dump(content, file)


def metrics(folder: Path, *names: str) -> list[str]:
    """The metrics files of some studies, in place of their reports."""
    found = []
    for name in names:
        content = YAML(typ="safe").load(folder / "workflow" / "studies" / f"{name}.yaml")
        places = itertools.product(content["arms"], content["draws"], content["seeds"])
        found += [
            f"results/{name}/{arm}/draw-{draw}-seed-{seed}/evaluate/metrics.json"
            for arm, draw, seed in places
        ]
    return found


def snakemake(folder: Path, *arguments: str) -> str:
    command = str(Path(sys.executable).with_name("snakemake"))
    return run(folder, command, "--cores", "4", *arguments, path=os.defpath)


def planned(folder: Path, *targets: str) -> dict[str, int]:
    """How many jobs of each rule Snakemake would run."""
    printed = snakemake(folder, "--dry-run", "--", *targets)
    if "Nothing to be done" in printed:
        return {}
    table = printed.partition("Job stats:")[2].partition("total")[0].splitlines()[3:]
    return {words[0]: int(words[1]) for words in map(str.split, table) if len(words) == 2}


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A copy in which a study of four runs was run on four pretend devices."""
    folder = copy_repository(tmp_path_factory.mktemp("studies"), TINY)
    shutil.rmtree(folder / "workflow" / "studies")
    (folder / "workflow" / "studies").mkdir()
    with (folder / "workflow" / "presets" / "tiny.yaml").open("w") as file:
        YAML(typ="safe").dump(PRESET, file)
    study(folder, "parts", STUDY)
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(SITE)
    return folder


@pytest.fixture(scope="module")
def devices(repository) -> list[list[str]]:
    """Words of the lines that the four trainings wrote: begin or end, device."""
    log = repository / "pretend.log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRETEND", str(log))
        patch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(DEVICES))))
        patch.setenv("PYTHONPATH", f"{repository / 'site'}:{repository}")
        patch.setenv("TMPDIR", str(repository / "site"))
        resources = ("--resources", f"gpu={DEVICES}", "--set-threads", "study_train=1")
        snakemake(repository, *resources, "--", *metrics(repository, "parts"))
    return [line.split() for line in log.read_text().splitlines()]


def test_four_trainings_run_at_once_each_on_its_own_device(devices):
    busy, most = set(), 0
    for word, device in devices:
        assert (device in busy) == (word == "end")
        busy ^= {device}
        most = max(most, len(busy))
    assert most == DEVICES


def test_prepared_volumes_and_split_are_shared(repository, devices):
    data = repository / "results" / "data"
    assert len(list(data.glob("*/prepare"))) == 1
    assert len(list(data.glob("*/draw-*"))) == 1


def test_seeds_differ_and_nothing_runs_twice(repository, devices):
    targets = metrics(repository, "parts")
    scores = [json.loads((repository / path).read_text())["mean_dice"] for path in targets]
    assert len(set(scores)) > 1
    assert planned(repository, *targets) == {}


def test_the_page_of_a_study_is_made_once(repository, devices):
    page = "reports/parts.html"
    assert planned(repository, page) == {"study_report": 1}
    snakemake(repository, "--", page)
    text = (repository / page).read_text()
    assert "4 runs, all finished" in text and "Synthetic: these runs are on phantoms" in text
    with (repository / "results" / "parts" / "tables" / "arms.csv").open() as file:
        assert [line.split(",")[0] for line in file] == ["row", "all", "bare"]
    assert planned(repository, page) == {}


def test_another_arm_costs_its_own_runs_alone(repository, devices):
    more = STUDY["arms"] | {"second": {"train": {"lambda_start": 0.3}}}
    study(repository, "parts", STUDY | {"arms": more})
    assert planned(repository, *metrics(repository, "parts")) == {
        "study_train": 2,
        "study_evaluate": 2,
    }
    study(repository, "parts", STUDY)


def test_another_study_copies_the_runs_that_it_shares(repository, devices):
    study(repository, "rows", STUDY | {"arms": {"whole": {}}, "seeds": [1]})
    (path,) = metrics(repository, "rows")
    model = path.replace("evaluate/metrics.json", "train/model.json")
    assert planned(repository, path, model) == {"study_train": 1, "study_evaluate": 1}
    snakemake(repository, "--resources", "gpu=0", "--", path, model)
    twin = "results/parts/all/draw-1-seed-1/evaluate/metrics.json"
    assert (repository / path).read_bytes() == (repository / twin).read_bytes()
    assert len(list((repository / "runs").glob("*-train-*"))) == 4


def test_predictions_are_scored_and_again_when_they_change(repository, devices):
    arms = {"whole": {}, "tool": {"predictions": "tool/{study}"}}
    study(repository, "scored", STUDY | {"arms": arms, "seeds": [1]})
    page, own = "reports/scored.html", "results/scored/tool/draw-1-seed-1/evaluate/metrics.json"
    hsam = str(Path(sys.executable).with_name("hsam"))
    run(repository, hsam, "export-nnunet", "nn", "--study", "scored/whole/draw-1-seed-1")
    shutil.copytree(next(repository.glob("nn/nnUNet_raw/*/labelsTs")), repository / "tool/scored")
    snakemake(repository, "--resources", "gpu=0", "--", page)
    assert json.loads((repository / own).read_text())["mean_dice"] == 1.0
    assert "Not finished" not in (repository / page).read_text()
    assert planned(repository, page) == {}
    volume = next((repository / "tool" / "scored").iterdir())
    volume.write_bytes(volume.read_bytes() + b"\0")  # gzip passes over it
    assert planned(repository, page) == {"study_evaluate": 1, "study_report": 1}


def test_folds_share_the_volumes_and_test_every_case_once(repository, devices):
    study(repository, "crossed", STUDY | {"arms": {"all": {}}, "seeds": [1], "folds": 2})
    page = "reports/crossed.html"
    stages = ("study_split", "study_train", "study_evaluate")
    assert planned(repository, page) == dict.fromkeys(stages, 2) | {"study_report": 1}
    snakemake(repository, "--resources", "gpu=0", "--", page)
    tables = (repository / "results" / "crossed" / "all").glob("*-fold-?/evaluate/cases.parquet")
    tested = [case for path in tables for case in pd.read_parquet(path)["case"].unique()]
    assert sorted(tested) == ["img0001", "img0002", "img0003", "img0004"]
    text = (repository / page).read_text()
    assert "2 folds, each case tested in one; 2 runs, all finished" in text
    assert planned(repository, page) == {}

"""Snakefile and dvc.yaml describe one graph: the same commands, inputs and outputs."""

import re
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo

from hsam.registry import MODELS
from pipeline.core import sources
from pipeline.core.params.blocks import READS
from pipeline.core.registry import DATASETS
from tests.workflow.conftest import copy_repository, run

ROOT = Path(__file__).resolve().parents[2]
STAGES = list(READS)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    return copy_repository(tmp_path_factory.mktemp("repository"), {})


@pytest.fixture(scope="module")
def snakemake_rules(repository) -> dict[str, dict[str, set[str]]]:
    """Rule to its commands, inputs and outputs, as a dry run prints them."""
    options = ("--dry-run", "--forceall", "--printshellcmds", "--workflow-profile", "none")
    printed = run(repository, "snakemake", "--cores", "2", *options)
    rules: dict[str, dict[str, set[str]]] = {}
    for line in printed.splitlines():
        name, _, value = line.strip().partition(": ")
        if match := re.fullmatch(r"(?:local)?rule (\w+):", line):
            entry = rules.setdefault(match[1], {"cmd": set(), "deps": set(), "outs": set()})
        elif name in ("input", "output"):
            key = {"input": "deps", "output": "outs"}[name]
            entry[key] |= {folded(path) for path in value.split(", ")}
        elif name == "Shell command":
            entry["cmd"].add(plain_command(value))
    del rules["all"]
    return rules


@pytest.fixture(scope="module")
def dvc_stages(repository) -> dict[str, dict[str, set[str]]]:
    with Repo(str(repository)) as opened:
        return {
            stage.name: {
                "cmd": {plain_command(stage.cmd)},
                "deps": {dep.def_path for dep in stage.deps if dep.def_path != "params.yaml"},
                "outs": {out.def_path for out in stage.outs},
                "params": {
                    name
                    for dep in stage.deps
                    if dep.def_path == "params.yaml"
                    for name in dep.params
                },
            }
            for stage in opened.index.stages
        }


def plain_command(shell: str) -> str:
    """A command without what differs between the two: log, parameter file, resources."""
    shell = re.sub(r"\s*2>&1 \| tee \S+$", "", " ".join(shell.split()))
    return re.sub(r" --(params|gpus|jobs|batch) \S+", "", shell)


def folded(path: str) -> str:
    """Files that DVC tracks as one folder, by that folder's name."""
    for folder in ("data/raw/phantom", "results/prepare/shards"):
        if path.startswith(f"{folder}/"):
            return folder
    return path


def is_code(path: str) -> bool:
    return path.split("/")[0] in sources.PACKAGES


def data(paths: set[str]) -> set[str]:
    return {path for path in paths if not is_code(path)}


def covered(paths: set[str]) -> set[str]:
    """The source files that are named, or lie in a folder that is."""
    found = set()
    for path in filter(is_code, paths):
        inside = (ROOT / path).rglob("*") if (ROOT / path).is_dir() else [ROOT / path]
        found |= {file.relative_to(ROOT).as_posix() for file in inside}
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_both_engines_run_the_same_command_on_the_same_files(stage, snakemake_rules, dvc_stages):
    rule, other = snakemake_rules[stage], dvc_stages[stage]
    if stage == "prepare":
        # a job for each batch of cases, then all; DVC has one stage for both
        batch = snakemake_rules["prepare_batch"]
        rule = {"cmd": rule["cmd"] | batch["cmd"], "deps": batch["deps"], "outs": rule["outs"]}
    assert rule["cmd"] == other["cmd"]
    assert rule["deps"] == data(other["deps"])
    assert rule["outs"] == other["outs"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_and_parameters_it_uses(stage, dvc_stages):
    choices = {
        "prepare": [sources.data_set(name) for name in DATASETS],
        "report": [sources.data_set(name) for name in DATASETS],
        **dict.fromkeys(
            ("search", "train", "evaluate"), [sources.model(name, "vit_b") for name in MODELS]
        ),
    }.get(stage, [sources.NOTHING])
    used = {path.as_posix() for choice in choices for path in sources.stage_files(stage, choice)}
    found = covered(dvc_stages[stage]["deps"])
    assert used <= found, "dvc.yaml: name the folders of these under the stage's deps"
    others = {f"pipeline/stages/{name}.py" for name in STAGES if name != stage}
    assert not others & found
    assert dvc_stages[stage]["params"] == set(READS[stage])


def test_there_are_no_other_stages(dvc_stages, snakemake_rules):
    assert set(dvc_stages) == set(STAGES)
    assert set(snakemake_rules) == {*STAGES, "prepare_batch"}


def test_workers_of_a_search_are_jobs_that_it_waits_for(repository):
    options = ("--dry-run", "--forceall", "--printshellcmds", "--workflow-profile", "none")
    three = ("--config", "search={workers: 3}")
    wanted = "results/search/best.yaml"
    printed = run(repository, "snakemake", wanted, "--cores", "2", *options, *three)
    commands = re.findall(r"hsam search .*--worker (\d)", printed)
    assert sorted(commands) == ["1", "2", "3"]
    (waits,) = re.findall(r"^rule search:\n.*?input: (.*?)\n", printed, re.DOTALL | re.MULTILINE)
    ended = {f"results/search-workers/{number}" for number in (1, 2, 3)}
    assert ended <= set(waits.split(", "))


def test_snakemake_lists_every_bad_parameter_at_once(repository, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text('{train: {epochs: "3", epoch: 2}, split: {slices: 7}}')
    command = ["snakemake", "--cores", "1", "--dry-run", "--configfile", str(path)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 1
    for key in ("train.epochs: '3'", "train.epoch: unknown key", "split.slices: 7"):
        assert f"{path}: {key}" in done.stdout + done.stderr

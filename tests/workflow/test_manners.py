"""Snakemake's own commands and options work on this workflow as its users type them."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.workflow.conftest import ROOT, run

SNAKEFILE = str(ROOT / "Snakefile")
SMALL = "dataset={phantom: {cases: 4, size: 32}}"


def snakemake(folder: Path, *arguments: str) -> str:
    """What Snakemake prints in a folder; it must succeed."""
    return run(folder, "snakemake", "--snakefile", SNAKEFILE, *arguments)


def tree(folder: Path) -> dict[str, int]:
    """Every file and folder with its time, without what is Snakemake's own."""
    return {
        str(path): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if ".snakemake" not in path.parts
    }


def threads(printed: str) -> dict[str, str]:
    """Rule to the threads that a dry run shows."""
    found, rule = {}, ""
    for line in map(str.strip, printed.splitlines()):
        if line.startswith("rule "):
            rule = line.split()[1].rstrip(":")
        elif line.startswith("threads: "):
            found[rule] = line.split()[1]
    return found


def test_commands_that_run_no_job_need_no_cores(tmp_path):
    commands = ("--unlock", "--dag", "--rulegraph", "--summary")
    started = {
        command: subprocess.Popen(
            ["snakemake", "--snakefile", SNAKEFILE, command],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    }
    printed = {command: process.communicate() for command, process in started.items()}
    for command, process in started.items():
        assert process.returncode == 0, printed[command]
    assert printed["--dag"][0].startswith("digraph snakemake_dag")
    assert "evaluate" in printed["--rulegraph"][0]
    assert "results/train/model.json" in printed["--summary"][0]


def test_a_dry_run_writes_nothing(tmp_path):
    (tmp_path / "params.yaml").write_text("train: {lora_rank: 2}\n")
    before = tree(tmp_path)
    options = ("--dry-run", "--printshellcmds", "--workflow-profile", "none", "--config")
    printed = snakemake(tmp_path, *options, "train={lora_rank: 8}", SMALL)
    assert "hsam train --params runs/params/" in printed
    assert tree(tmp_path) == before


def test_threads_are_a_share_of_the_cores(tmp_path):
    options = ("--dry-run", "--workflow-profile", "none", "--config", SMALL)
    printed = snakemake(tmp_path, "--cores", "8", "--resources", "gpu=4", *options)
    assert {threads(printed)[rule] for rule in ("search", "train", "evaluate")} == {"2"}
    settings = ("threads=3", "train={devices: 2}")
    found = threads(snakemake(tmp_path, "--cores", "8", *options, *settings))
    assert (found["search"], found["train"]) == ("3", "6")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("threads=none", "--config threads=none: expected a whole number"),
        ("train={lora_rank: -8}", "--config: train.lora_rank: -8 is not allowed"),
    ],
)
def test_a_bad_value_of_config_is_one_sentence(tmp_path, given, sentence):
    command = ["snakemake", "--snakefile", SNAKEFILE, "--dry-run", "--config", given]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert sentence in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_another_folder_takes_its_own_parameters(tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "params.yaml").write_text("train: {lora_rank: -8}\n")
    command = ["snakemake", "--snakefile", SNAKEFILE, "--directory", "work", "--dry-run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "params.yaml: train.lora_rank: -8 is not allowed" in done.stdout + done.stderr
    (work / "params.yaml").unlink()
    printed = run(tmp_path, *command, "--config", SMALL)
    assert "evaluate" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["work"]


def test_a_workflow_of_its_own_takes_this_one_as_a_module(tmp_path):
    (tmp_path / "Snakefile").write_text(f"""
configfile: "config.json"

module segmentation:
    snakefile: "{SNAKEFILE}"
    config: config["segmentation"]

use rule * from segmentation as segmentation_*

rule all:
    default_target: True
    input: rules.segmentation_prepare.output.manifest
    output: "shown.txt"
    shell: "ls results/prepare/shards > {{output}}"
""")
    config = {"segmentation": {"dataset": {"phantom": {"cases": 3, "size": 32}}}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    run(tmp_path, "snakemake", "--cores", "2", "all")
    assert (
        tmp_path / "shown.txt"
    ).read_text() == "img0001.parquet\nimg0002.parquet\nimg0003.parquet\n"

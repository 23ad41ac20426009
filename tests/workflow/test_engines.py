"""Both engines run the whole road on tiny phantoms, in a copy of the repository."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from pipeline.core.params.load import Layer, layers, load, resolve
from pipeline.core.params.render import render
from tests.workflow.conftest import copy_repository, run

TINY = {
    "dataset": {"phantom": {"cases": 4, "size": 32}},
    "prepare": {"batch": 2},
    "split": {"slices": None, "validation": 0.3},
    "train": {"image_size": 32, "epochs": 2, "validate_every": 1},
    "search": {"trials": 1, "epochs": 1},
    "report": {"slices": 2},
}
METRICS = Path("results/evaluate/metrics.json")
HEADLINE = Path("results/evaluate/headline.json")


def snakemake(folder: Path, *arguments: str) -> str:
    """Snakemake where no environment is activated."""
    command = str(Path(sys.executable).with_name("snakemake"))
    options = ("--cores", "2", "--resources", "gpu=0")
    return run(folder, command, *options, *arguments, path=os.defpath)


def planned(folder: Path, *arguments: str) -> set[str]:
    """The rules that Snakemake would run."""
    printed = snakemake(folder, "--dry-run", "--workflow-profile", "none", *arguments)
    lines = [line.strip() for line in printed.splitlines()]
    rules = {
        line.split()[1].rstrip(":") for line in lines if line.startswith(("rule ", "localrule "))
    }
    return rules - {"all"}


def executed(printed: str) -> set[str]:
    """The stages that DVC ran."""
    return {
        line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage '")
    }


def change(folder: Path, changes: dict) -> None:
    path = folder / "params.yaml"
    path.write_text(render(resolve([*layers(path), Layer("", changes)])))


def rows(folder: Path) -> list[dict]:
    """The experiments of `dvc exp show`, on whichever commit."""
    found = []
    for item in json.loads(run(folder, "dvc", "exp", "show", "--json", "-A")):
        found += [row["revs"][0] for row in item["experiments"] or []]
    return found


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A clone with tiny parameters, in which Snakemake has run once."""
    folder = copy_repository(tmp_path_factory.mktemp("repository"), TINY)
    snakemake(folder)
    return folder


def test_the_road_ends_in_a_report_and_a_row(repository):
    shown, all_ = (json.loads((repository / path).read_text()) for path in (HEADLINE, METRICS))
    assert set(shown) == {"mean_dice", "mean_hd95_mm", "mean_hd95_voxels", "dice"}
    assert shown == {name: all_[name] for name in shown}
    assert (repository / "reports" / "report.html").is_file()
    (row,) = rows(repository)
    assert row["data"]["metrics"] == {str(HEADLINE): {"data": shown}}


def test_snakemakes_own_report_has_the_tables_under_their_categories(repository):
    run(repository, "snakemake", "--report", "reports/workflow.html")  # no --cores
    page = (repository / "reports" / "workflow.html").read_text()
    for category in ("Scores", "Search", "Training", "Report"):
        assert f'"{category}"' in page
    for table in ("organs", "history", "trials", "review"):
        assert f"{table}.csv" in page


def test_nothing_runs_twice_and_finding_that_changes_no_file(repository):
    def times() -> dict[Path, int]:
        passing = {".snakemake", "__pycache__", ".git"}
        files = (path for path in repository.rglob("*") if not passing & set(path.parts))
        return {path: path.stat().st_mtime_ns for path in files}

    before = times()
    assert planned(repository) == set()
    assert times() == before


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"report": {"slices": 1}}, {"report"}),
        ({"evaluate": {"stage": "fine"}}, {"evaluate", "report"}),
        ({"train": {"epochs": 3}}, {"search", "train", "evaluate", "report"}),
        ({"split": {"slices": 0.5}}, {"split", "search", "train", "evaluate", "report"}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_changed_parameter_reruns_what_reads_it(repository, tmp_path, changes, expected):
    overlay_file = tmp_path / "overlay.yaml"
    overlay_file.write_text(json.dumps(changes))
    assert planned(repository, "--configfile", str(overlay_file)) == expected


def test_a_changed_raw_file_reruns_its_batch(repository):
    path = next((repository / "data" / "raw" / "phantom").rglob("img0004.nii.gz"))
    content, times = path.read_bytes(), path.stat()
    path.write_bytes(content + b"0")
    try:
        printed = snakemake(repository, "--dry-run", "--workflow-profile", "none")
    finally:
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "wildcards: batch=3-4" in printed
    assert "wildcards: batch=1-2" not in printed


def test_changed_code_reruns_its_stage(repository):
    path = repository / "pipeline" / "stages" / "split.py"
    text, times = path.read_text(), path.stat()
    path.write_text(text + "\nEXTRA = 1\n")
    try:
        assert {"split", "train", "report"} <= planned(repository)
        assert not {"phantom", "prepare", "prepare_batch"} & planned(repository)
    finally:
        path.write_text(text)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_dvc_has_nothing_to_do_after_snakemake(repository):
    assert "up to date" in run(repository, "dvc", "status")
    assert executed(run(repository, "dvc", "repro")) == set()
    assert run(repository, "git", "status", "--porcelain").split() == [
        "??",
        "dvc.lock",
        "??",
        "results/",
    ]


def test_a_fresh_clone_has_nothing_to_do_after_dvc_pull(repository, tmp_path):
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    shutil.copytree(repository, origin, symlinks=True)
    run(origin, "dvc", "remote", "add", "--default", "--quiet", "kept", str(tmp_path / "remote"))
    run(origin, "git", "add", "--all")
    run(origin, "git", "commit", "--quiet", "--message", "a run")
    run(origin, "dvc", "push", "--quiet")
    run(tmp_path, "git", "clone", "--quiet", str(origin), str(clone))
    run(clone, "dvc", "pull", "--quiet")
    assert planned(clone) == set()
    assert executed(run(clone, "dvc", "repro")) == set()
    # what differs from dvc.lock is computed, also where Snakemake remembers nothing
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("evaluate: {stage: fine}")
    assert planned(clone, "--configfile", str(overlay)) == {"evaluate", "report"}
    change(clone, {"split": {"slices": 0.5}})
    assert planned(clone) == {"split", "search", "train", "evaluate", "report"}
    run(clone, "git", "checkout", "--quiet", "params.yaml")
    shutil.rmtree(clone / "data")
    assert planned(clone) == set()
    assert executed(run(clone, "dvc", "repro", "--allow-missing")) == set()


def test_dvc_gives_the_same_metrics(repository):
    before = (repository / METRICS).read_text()
    # without what Snakemake left, DVC computes it all again
    shutil.rmtree(repository / "runs")
    assert "already done" not in run(repository, "dvc", "repro", "--force")
    assert (repository / METRICS).read_text() == before


def test_dvc_experiments_compose_presets_and_values(repository):
    params = load([repository / "params.yaml"])
    change(repository, {"train": {"epochs": 3}})
    preset = repository / "workflow" / "presets" / "tiny.yaml"
    preset.write_text("# @package _global_\nreport: {slices: 1}\ntrain: {epochs: 1}\n")
    run(repository, "git", "add", "workflow")
    before = len(rows(repository))
    printed = run(
        repository,
        *("dvc", "exp", "run", "-S", "+workflow/presets=tiny", "-S", "train.epochs=2"),
    )
    assert executed(printed) == {"report"}
    assert len(rows(repository)) == before + 1
    after = load([repository / "params.yaml"])
    assert (after.train.epochs, after.report.slices) == (2, 1)
    assert after.dataset == params.dataset
    assert "# pictures of test slices" in (repository / "params.yaml").read_text()

"""The wheel holds all that the commands need, and nothing that other projects stumble over."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    *("hsam", "pipeline", "workflow", "profiles", "Snakefile", "dvc.yaml", ".dvcignore"),
    *("hsam_pipeline.py", "setup.py", "pyproject.toml", "README.md", "LICENSE"),
)
PASSING = ("__pycache__", "*.pyc", "*.egg-info")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder like site-packages with the wheel of this clone in it."""
    clone, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("site-packages")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, clone / name, ignore=shutil.ignore_patterns(*PASSING))
        else:
            shutil.copy(ROOT / name, clone / name)
    (clone / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", clone / ".dvc" / "config")
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=clone, capture_output=True, text=True, check=True)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        content.extractall(out)
    wheel.unlink()
    shutil.rmtree(clone)
    return out


def run(installed: Path, folder: Path, *command: str) -> str:
    """What a command prints that finds the wheel before the clone."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def hsam(installed: Path, folder: Path, *arguments: str) -> str:
    code = "import hsam_pipeline; hsam_pipeline.main()"
    return run(installed, folder, sys.executable, "-c", code, *arguments)


def test_it_brings_two_packages_and_the_command(installed):
    (about,) = installed.glob("hsam-*.dist-info")
    assert {path.name for path in installed.iterdir()} == {"hsam", "hsam_pipeline", about.name}
    assert (about / "top_level.txt").read_text().split() == ["hsam", "hsam_pipeline"]
    assert "hsam = hsam_pipeline:main" in (about / "entry_points.txt").read_text()


@pytest.mark.parametrize("folder", ["hsam", "pipeline", "workflow", "profiles"])
def test_every_file_of_the_clone_is_in_it(installed, folder):
    home = installed if folder == "hsam" else installed / "hsam_pipeline"
    files = {
        path.relative_to(ROOT)
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert len(files) > 1
    assert {str(path) for path in files if not (home / path).is_file()} == set()


def test_the_base_needs_neither_engine_nor_optuna(installed):
    (about,) = installed.glob("hsam-*.dist-info")
    lines = (about / "METADATA").read_text().splitlines()
    wanted = [line.removeprefix("Requires-Dist: ") for line in lines if "Requires-Dist" in line]
    base = [line for line in wanted if "extra ==" not in line]
    named = ("dvc", "dvclive", "snakemake", "optuna", "lightning-fabric")
    assert not [line for line in base if line.startswith(named)]
    assert all(
        any(line.startswith(name) and 'extra == "pipeline"' in line for line in wanted)
        for name in named
    )


def test_it_finds_its_files_and_computes_the_clones_digests(installed, tmp_path):
    facts = json.loads(hsam(installed, tmp_path, "info", "--json"))
    assert facts["home"] == str(installed / "hsam_pipeline") and facts["clone"] is False
    assert "synapse-10pct" in facts["presets"] and "table10" in facts["studies"]
    code = (
        "import hsam_pipeline\n"
        "from pipeline.core import run_folder, sources\n"
        "print(sources.stage_digest('train', sources.model('hsam', 'vit_b')))\n"
        "print(run_folder.provenance({})['commit'])"
    )
    command = [sys.executable, "-c", code]
    mine, commit = run(installed, tmp_path, *command).split()
    assert mine == run(ROOT, tmp_path, *command).split()[0]
    assert commit == "None"  # none of a repository that it may be installed in


def test_a_project_is_ready_for_both_engines(installed, tmp_path):
    hsam(installed, tmp_path, "new", "project")
    folder = tmp_path / "project"
    printed = run(installed, folder, "snakemake", "--dry-run", "--quiet", "rules")
    assert all(f"\n{rule} " in printed for rule in ("prepare", "train", "report", "project"))
    listed = run(installed, folder, "dvc", "stage", "list", "--name-only").split()
    assert listed == ["phantom", "prepare", "split", "search", "train", "evaluate", "report"]

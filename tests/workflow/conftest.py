"""A copy of the repository for tests that let an engine work in it."""

import os
import shutil
import subprocess
from pathlib import Path

from pipeline.core.params.blocks import Params
from pipeline.core.params.load import load, validate
from pipeline.core.params.render import render
from pipeline.stages import phantom, prepare

ROOT = Path(__file__).resolve().parents[2]
# a run's outputs that are to be committed lie in the user's clone until they are
LEFT_OUT = ("tests/", "results/", "dvc.lock")


def run(folder: Path, *command: str, path: str | None = None) -> str:
    """What a command prints in `folder`; it must succeed. `path` replaces the user's PATH."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")}
    environment["PATH"] = path or environment["PATH"]
    environment |= {f"GIT_{role}_NAME": "test" for role in ("AUTHOR", "COMMITTER")}
    environment |= {f"GIT_{role}_EMAIL": "test@localhost" for role in ("AUTHOR", "COMMITTER")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def prepare_phantoms(folder: Path, text: str) -> Params:
    """Make `folder`, which becomes the working directory, with params.yaml of this text and four
    prepared phantoms.

    Returns:
        the parameters.
    """
    folder.mkdir()
    os.chdir(folder)
    Path("params.yaml").write_text(text)
    params, results, runs = load([Path("params.yaml")]), Path("results"), Path("runs")
    phantom.run(Path(params.dataset.root), 4, params.dataset.phantom.seed, 32)
    prepare.run(params, results / "prepare", runs, batch="1-4")
    prepare.run(params, results / "prepare", runs)
    return params


def copy_repository(folder: Path, changes: dict) -> Path:
    """The files of the repository without its tests and what a run leaves, as a first commit.

    Its params.yaml has `changes` over the packaged defaults, whatever the user's says.
    """
    listed = run(ROOT, "git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, listed.split("\0")):
        if not name.startswith(LEFT_OUT) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(render(validate(changes, "")))
    for command in ("init --quiet", "add --all", "commit --quiet --message first"):
        run(folder, "git", *command.split())
    return folder

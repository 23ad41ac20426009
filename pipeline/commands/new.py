"""`hsam new FOLDER`: a folder of one's own, in which Snakemake and DVC run the installed pipeline.

Rules and code stay where `hsam` is installed; parameters, presets, studies and profiles are copied,
to be changed.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hsam.version import __version__
from pipeline.core import files, home, writable
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Params
from pipeline.core.params.render import render

PINS, IGNORE = "requirements.txt", ".gitignore"
SNAKEFILE = """\
# The rules come with the installed hsam (`hsam info` says where it is).
import hsam_pipeline


include: hsam_pipeline.SNAKEFILE


# what `snakemake` makes; files of rules of your own, below this one, are named behind it
rule project:
    default_target: True
    input:
        rules.all.input,
"""
IGNORED = """\
.snakemake/
/data/
/runs/
/logs/
/reports/
/results/*
!/results/evaluate/
/results/evaluate/*
!/results/evaluate/headline.json
/checkpoints/
/dvc_plots/
__pycache__
"""
# copied as they are
COPIED = (
    ".dvc/config",
    ".dvcignore",
    "profiles",
    "workflow/presets",
    "workflow/studies",
    "workflow/report/plots.html",
)
# the dependencies of a stage in dvc.yaml that are the clone's own code
CODE = re.compile(r"(?:^ +- (?:hsam|pipeline)(?:/\S*)?\n)+", re.MULTILINE)


def run(folder: Path, params: Params) -> None:
    """Lay a project out; what is in the folder already stays.

    Args:
        folder: to make, or to add to.
        params: for its params.yaml.

    Raises:
        UserError: the folder can't be written, or has one of the files already.
    """
    writable.check_folder(folder)
    if folder.resolve() == home.ROOT:
        raise UserError(
            f"{folder}: is the clone itself, which needs no other; name another folder."
        )
    place = Path(tempfile.mkdtemp(prefix=".hsam-new-", dir=_nearest(folder.absolute())))
    try:
        _fill(place, params, _lines(folder / IGNORE))
        there = sorted(path.relative_to(place) for path in place.rglob("*") if path.is_file())
        mine = [path for path in there if str(path) != IGNORE and (folder / path).exists()]
        if taken := sorted({path.parts[0] for path in mine}):
            raise UserError(
                f"{folder}: has files of a project already, in {', '.join(taken)}; name another "
                "folder, or move them away."
            )
        for path in there:
            with writable.naming_unwritable(folder / path):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(place / path, folder / path)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    _version(folder)
    say(
        f"{folder}: has params.yaml, Snakefile, dvc.yaml, {PINS}, profiles/ and workflow/; next:\n"
        f"  cd {folder}\n  git add . && git commit -m 'A project'\n"
        "  snakemake --cores all      # or dvc repro"
    )


def dvc_yaml(text: str) -> str:
    """The clone's dvc.yaml for a project: stages depend on the pins instead of the code's files."""
    first_line, _, stages = text.partition("\n")
    upgrade = f"""\
# With another version of hsam write its number into {PINS}: the stages run again, and find done
# what the version doesn't change.
"""
    return f"{first_line}\n{upgrade}" + CODE.sub(f"      - {PINS}\n", stages)


def _fill(place: Path, params: Params, ignored: Sequence[str]) -> None:
    """Write all files of a project into an empty folder; `ignored` are lines of a .gitignore."""
    for name in COPIED:
        source, target = home.ROOT / name, place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    stages = (home.ROOT / "dvc.yaml").read_text(encoding="utf-8")
    texts = {
        "Snakefile": SNAKEFILE,
        "dvc.yaml": dvc_yaml(stages),
        "params.yaml": render(params),
        IGNORE: "\n".join(dict.fromkeys((*ignored, *IGNORED.splitlines()))) + "\n",
        ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
        PINS: f"hsam[pipeline]=={__version__}\n",
    }
    for name, text in texts.items():
        files.write_text(place / name, text)


def _version(folder: Path) -> None:
    """Make the folder a git repository, unless it is in one; without git DVC is told so."""
    try:
        inside = _git(folder, "rev-parse", "--is-inside-work-tree")
        done = inside or _git(folder, "init", "--quiet")
    except OSError:
        done = False
    if not done:
        config = folder / ".dvc" / "config"
        text = config.read_text(encoding="utf-8")
        files.write_text(config, text.replace("[core]\n", "[core]\n    no_scm = true\n"))
        say("git isn't there: DVC works without versions; see no_scm in .dvc/config")


def _git(folder: Path, *arguments: str) -> bool:
    command: Sequence[str] = ("git", "-C", str(folder), *arguments)
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _lines(path: Path) -> list[str]:
    return files.read_text(path).splitlines() if path.is_file() else []


def _nearest(path: Path) -> Path:
    while not path.is_dir():
        path = path.parent
    return path

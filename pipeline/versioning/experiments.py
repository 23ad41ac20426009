"""Rows of `dvc exp show` for runs that DVC did not start.

A DVC experiment is a commit under `refs/exps/<base>/<name>`, with parameters, metrics and the
`dvc.lock` by which `dvc exp apply` finds the run's outputs in the cache. No file of the working
tree is touched.
"""

import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.core import locks
from pipeline.core.console import LINE_SECONDS, say, steps
from pipeline.core.errors import UserError
from pipeline.core.files import digest
from pipeline.core.params.blocks import Params
from pipeline.core.params.dotted import flat
from pipeline.core.params.render import render
from pipeline.versioning import git
from pipeline.versioning.bench import LOCK, Bench

HEADLINE = "results/evaluate/headline.json"  # the metrics of dvc.yaml
SHOWN = 4  # changed parameters that a name holds
LONGEST = 32  # characters of each: git keeps a name as a file's, which holds 255 bytes
SECONDS = 0.2  # between two looks at a lock that is waited for


@dataclass(frozen=True)
class Finished:
    """A run whose stages have published their outputs.

    Attributes:
        name: of its row: letters, digits, ".", "-" and "_".
        params: that its stages were run with.
        folders: stage to the folder of its outputs, wherever that is.
        report: its page, if it has one.
    """

    name: str
    params: Params
    folders: Mapping[str, Path]
    report: Path | None = None


def record(runs: Sequence[Finished], repository: Path) -> list[str]:
    """Record experiments on top of the current commit; an older one of a name is replaced.

    `dvc exp apply NAME` restores a run's parameters, and its outputs at the paths of `dvc.yaml`:
    `results/<stage>`. Callers may do so at once: one waits for the other.

    Args:
        runs: with outputs of evaluate.
        repository: root of the git repository.

    Returns:
        The names recorded; none when there is nothing to record to: no git repository with a commit
        and a `.dvc` folder, or the run belongs to `dvc exp run`, which records it itself.
    """
    base = git.head(repository) if (repository / ".dvc").is_dir() else None
    if os.environ.get("DVC_EXP_NAME") or base is None or not runs:
        return []
    (repository / ".dvc" / "tmp").mkdir(exist_ok=True)
    release = _wait(repository / ".dvc" / "tmp" / "hsam.lock")
    try:
        bench = Bench.of(repository)
        with steps("record", len(runs), pause=LINE_SECONDS, shown=len(runs) > 1) as shown:
            for run in runs:
                _record(run, base, bench)
                shown.advance(run.name)
    finally:
        release()
    return [run.name for run in runs]


def _record(run: Finished, base: str, bench: Bench) -> None:
    """Record a run on top of a commit."""
    texts = {
        "params.yaml": render(run.params),
        HEADLINE: (run.folders["evaluate"] / Path(HEADLINE).name).read_text("utf-8"),
        LOCK: bench.lock_of(run.params, run.folders, run.report),
    }
    message = f"dvc: commit experiment {run.name}"
    commit = git.commit_over(bench.repository, base, texts, message)
    ref = f"refs/exps/{base[:2]}/{base[2:]}/{run.name}"
    git.run(bench.repository, "update-ref", ref, commit)


def record_run(params: Params, folders: Mapping[str, Path], report: Path | None) -> None:
    """Record a finished run in the repository of the working directory, under a name of its own.

    Args:
        params: that the run's stages were run with.
        folders: stage to the folder of its outputs.
        report: its page.
    """
    here = Path.cwd()
    if not (folders["evaluate"] / Path(HEADLINE).name).is_file():
        return  # evaluated by a version that had none
    name = name_of(params, folders["evaluate"], here)
    try:
        recorded = record([Finished(name, params, folders, report)], here)
    except UserError as error:
        say(f"note: no row of dvc exp show: {error}")
        return
    if recorded:
        say(f"recorded as {name}: dvc exp show, dvc exp apply {name}")


def name_of(params: Params, evaluation: Path, repository: Path) -> str:
    """A run's name: data set, model, what differs from the last commit's params.yaml, four digits
    that tell runs with other parameters or metrics apart. Recorded twice, a run has one row.

    Args:
        params: of the run.
        evaluation: folder of the evaluate stage's outputs.
        repository: root of the git repository.
    """
    values = params.model_dump(mode="json")
    metrics = (evaluation / Path(HEADLINE).name).read_text(encoding="utf-8")
    before = flat(_committed(repository))
    changed = [
        f"{key.rpartition('.')[2]}-{_short(value)}"[:LONGEST]
        for key, value in flat(values).items()
        if key in before and before[key] != value and key not in ("dataset.name", "train.model")
    ]
    words = [params.dataset.name, params.train.model, *changed[:SHOWN]]
    name = "-".join(re.sub(r"[^A-Za-z0-9_.-]+", "_", word).strip("_.") for word in words)
    return f"{name}-{digest([values, metrics])[:4]}"


def _short(value: Any) -> Any:
    """A list of names, say of cases, as how many there are."""
    names = isinstance(value, list) and any(isinstance(part, str) for part in value)
    return len(value) if names else value


def _committed(repository: Path) -> Any:
    """The content of params.yaml in the last commit; empty where there is none to be read."""
    base = git.head(repository)
    text = None if base is None else git.file_at(repository, base, "params.yaml")
    try:
        return YAML(typ="safe").load(text or "{}")
    except YAMLError:
        return {}


def _wait(path: Path) -> locks.Release:
    while True:
        if (release := locks.try_lock(path)) is not None:
            return release
        time.sleep(SECONDS)

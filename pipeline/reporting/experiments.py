"""Rows of `dvc exp show` for runs that DVC did not start.

A DVC experiment is a commit under `refs/exps/<base>/<name>`. It is written with git plumbing
alone, so that concurrent runs can record theirs: no working tree, index or DVC lock is touched.
"""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pipeline.core.console import say
from pipeline.core.files import digest
from pipeline.core.params.blocks import Params
from pipeline.core.params.render import render


def record(name: str, texts: Mapping[str, str], repository: Path) -> bool:
    """Record one experiment on top of the current commit; an older one of that name is replaced.

    Args:
        name: the row's name: letters, digits, "-" and "_".
        texts: path in the repository to file content: params.yaml and the metrics of dvc.yaml.
        repository: root of the git repository.

    Returns:
        False when there is nothing to record to: no git repository with a commit and a `.dvc`
        folder, or the run belongs to `dvc exp run`, which records it itself.
    """
    if os.environ.get("DVC_EXP_NAME") or not (repository / ".dvc").is_dir():
        return False
    try:
        base = _git(repository, "rev-parse", "--verify", "HEAD^{commit}")
    except (OSError, subprocess.CalledProcessError):
        return False
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _git(repository, "read-tree", base, environment=index)
        for path, text in sorted(texts.items()):
            blob = _git(repository, "hash-object", "-w", "--stdin", text=text)
            entry = f"100644,{blob},{path}"
            _git(repository, "update-index", "--add", "--cacheinfo", entry, environment=index)
        tree = _git(repository, "write-tree", environment=index)
    commit = _git(
        repository,
        *("commit-tree", tree, "-p", base, "-m", f"dvc: commit experiment {name}"),
        environment=_identity(repository),
    )
    _git(repository, "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{name}", commit)
    return True


def _identity(repository: Path) -> dict[str, str]:
    """Environment with a committer where git's configuration names none: commit-tree needs one."""
    try:
        _git(repository, "var", "GIT_COMMITTER_IDENT")
        _git(repository, "var", "GIT_AUTHOR_IDENT")
    except subprocess.CalledProcessError:
        return {
            f"GIT_{role}_{field}": value
            for role in ("AUTHOR", "COMMITTER")
            for field, value in (("NAME", "hsam"), ("EMAIL", "hsam@localhost"))
        }
    return {}


def _git(
    repository: Path,
    *arguments: str,
    text: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """What a git command prints; `text` is its input, `environment` is added to ours."""
    completed = subprocess.run(
        ["git", "-C", str(repository), *arguments],
        input=text,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=True,
    )
    return completed.stdout.strip()


def record_run(params: Params, evaluation: Path) -> None:
    """Record a finished run in the repository of the working directory.

    The row's name is the data set's and a hash of parameters and metrics, so that recording the
    same run twice leaves one row.

    Args:
        params: that the run's stages were run with.
        evaluation: published folder of the evaluate stage.
    """
    metrics = (evaluation / "metrics.json").read_text(encoding="utf-8")
    name = f"{params.dataset.name}-{digest([params.model_dump(mode='json'), metrics])[:8]}"
    texts = {"params.yaml": render(params), "results/evaluate/metrics.json": metrics}
    if record(name, texts, Path.cwd()):
        say(f"recorded as {name}: dvc exp show")

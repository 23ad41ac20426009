"""Commits made with git plumbing alone: no working tree, index, stash or DVC lock is touched."""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path


def head(repository: Path) -> str | None:
    """The current commit; None where there is no repository, no commit or no git."""
    try:
        return run(repository, "rev-parse", "--verify", "HEAD^{commit}")
    except (OSError, subprocess.CalledProcessError):
        return None


def file_at(repository: Path, commit: str, path: str) -> str | None:
    """The text of a file in a commit; None where the commit has none."""
    try:
        return run(repository, "show", f"{commit}:{path}")
    except subprocess.CalledProcessError:
        return None


def commit_over(repository: Path, base: str, texts: Mapping[str, str], message: str) -> str:
    """A commit on top of `base` in which these files have other contents.

    Args:
        repository: its root.
        base: the parent.
        texts: path in the repository to file content.
        message: the commit's.
    """
    with tempfile.TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        run(repository, "read-tree", base, environment=index)
        for path, text in sorted(texts.items()):
            blob = run(repository, "hash-object", "-w", "--stdin", text=text)
            entry = f"100644,{blob},{path}"
            run(repository, "update-index", "--add", "--cacheinfo", entry, environment=index)
        tree = run(repository, "write-tree", environment=index)
    command = ("commit-tree", tree, "-p", base, "-m", message)
    return run(repository, *command, environment=_identity(repository))


def run(
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


def _identity(repository: Path) -> dict[str, str]:
    """Environment with a committer where git's configuration names none: commit-tree needs one."""
    try:
        run(repository, "var", "GIT_COMMITTER_IDENT")
        run(repository, "var", "GIT_AUTHOR_IDENT")
    except subprocess.CalledProcessError:
        return {
            f"GIT_{role}_{field}": value
            for role in ("AUTHOR", "COMMITTER")
            for field, value in (("NAME", "hsam"), ("EMAIL", "hsam@localhost"))
        }
    return {}

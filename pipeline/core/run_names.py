"""Names of trainings: a file `name` in the run folder, given once and kept until it is changed.

A name is `--name`'s, or what people call the data, the model and the first number that no other
training has. Runs of versions without names, and imported ones, go by their folder's name.
"""

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.core import files, locks
from pipeline.core.errors import UserError

FILE = "name"
LOCK = ".names.lock"  # in the folder of all run folders, while a name is chosen
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
STEM = 60  # signs of the data's name in a training's
SECONDS = 0.05  # between two looks at the lock


def of(folder: Path) -> str:
    """The name of the training in a run folder."""
    try:
        return files.read_text(folder / FILE).strip() or folder.name
    except (OSError, ValueError):
        return folder.name


def settle(folder: Path, stem: str, wanted: str | None = None) -> str:
    """Give a training its name, unless it has one and no other is wanted.

    Args:
        folder: its run folder.
        stem: what a name begins with that nobody chose.
        wanted: the name that somebody chose.

    Returns:
        the name.

    Raises:
        UserError: `wanted` isn't a name, or another training's.
    """
    if wanted is not None:
        check(wanted)
    elif (folder / FILE).is_file():
        return of(folder)
    release = _wait(folder.parent / LOCK)
    try:
        others = {of(other): other for other in _trainings(folder.parent) if other != folder}
        if wanted in others:
            raise UserError(
                f"--name {wanted}: {others[wanted]} has this name already; choose another, or give "
                "that run another name with `hsam runs name`."
            )
        name = wanted or next(new for new in _numbered(stem) if new not in others)
        files.write_text(folder / FILE, f"{name}\n")
        return name
    finally:
        with suppress(OSError):  # Windows keeps a file that is open
            (folder.parent / LOCK).unlink()
        release()


def check(name: str) -> None:
    """Refuse what can't be a run's name.

    Raises:
        UserError: it has other signs than letters, digits, ".", "-" and "_", or is too long.
    """
    if NAME.fullmatch(name) is None:
        raise UserError(
            f"--name {name!r}: expected up to 100 letters, digits, '.', '-' and '_', the first a "
            "letter or digit."
        )


def stem(data: str, model: str) -> str:
    """What the name of a training begins with that nobody chose, of any words for its data."""
    words = re.sub(r"[^A-Za-z0-9_.-]+", "-", data).strip("-._")
    return f"{words[:STEM] or 'data'}-{model}"


def _numbered(stem: str) -> Iterator[str]:
    number = 1
    while True:
        yield f"{stem}-{number}"
        number += 1


def _trainings(runs: Path) -> list[Path]:
    """Folders that have a name, or would be taken for a run of their folder's name."""
    return [path for path in files.entries(runs) if path.is_dir() and not path.name.startswith(".")]


def _wait(path: Path) -> locks.Release:
    while True:
        if (release := locks.try_lock(path)) is not None:
            return release
        time.sleep(SECONDS)

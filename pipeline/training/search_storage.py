"""Optuna's storages as a search uses them: a journal in its run folder, or the server of a URL."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalRedisBackend
from optuna.storages.journal._file import BaseJournalFileLock

from pipeline.core import locks
from pipeline.core.errors import UserError
from pipeline.core.params import search_url

JOURNAL = "study.journal"
POLL_SECONDS = 0.02  # between two looks at a lock that another worker holds
RACES = 8  # attempts to make the tables of a database, which another host may be making too
# what a URL needs beside Optuna
PACKAGES = {
    "redis": "redis",
    "rediss": "redis",
    "mysql": "pymysql",
    "postgresql": "psycopg[binary]",
}


def opened(where: str | None, folder: Path) -> BaseStorage:
    """The storage, made where it is new.

    Args:
        where: `search.storage`.
        folder: of the run; the journal lies there.

    Raises:
        UserError: a damaged journal, or a server that can't be reached.
    """
    if where is None:
        path = folder / JOURNAL
        with waited(folder / f"{JOURNAL}.lock"):
            _mend(path)
        _check(path)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalLock(path)))
    with explained(where):
        url = search_url.resolved(where)
        if url.startswith("redis"):
            return JournalStorage(JournalRedisBackend(url))
        return _database(_with_driver(url))


def shown(where: str | None, folder: Path) -> str:
    """What `optuna-dashboard` is given to show the study."""
    return str(folder / JOURNAL) if where is None else where


@contextmanager
def explained(where: str | None) -> Iterator[None]:
    """Inside the block, what a server says is one sentence, without the URL's password.

    Raises:
        UserError: the storage can't be reached, or its driver isn't installed.
    """
    if where is None:
        yield
        return
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if not _of_storage(error):
            raise
        reason = search_url.without_secrets(" ".join(str(error.__cause__ or error).split()), where)
        scheme = search_url.scheme(where)
        hint = f"pip install '{PACKAGES[scheme]}'" if _is_missing(error) else "look at its server"
        raise UserError(
            f"{search_url.KEY}: {where} can't be used ({reason[:300]}); {hint}, or set it to null."
        ) from None


@contextmanager
def waited(path: Path) -> Iterator[None]:
    """Hold a lock inside the block, once whoever holds it has let it go."""
    while (release := locks.try_lock(path)) is None:
        time.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        release()


class JournalLock(BaseJournalFileLock):
    """The kernel's lock, which a killed worker leaves free, in place of Optuna's files.

    A line that its writer was killed in is cut off before the next one is written behind it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: Any = None

    def acquire(self) -> bool:
        self._held = waited(self._path.with_name(f"{self._path.name}.lock"))
        self._held.__enter__()
        _mend(self._path)
        return True

    def release(self) -> None:
        self._held.__exit__(None, None, None)


def _mend(path: Path) -> None:
    """Cut a journal behind its last whole line; to be called with its lock held."""
    if not path.exists():
        return
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        keep = end
        while keep:
            start = max(0, keep - 2**16)
            file.seek(start)
            found = file.read(keep - start).rfind(b"\n")
            keep = start + found + 1 if found >= 0 else start
            if found >= 0:
                break
        if keep < end:
            file.truncate(keep)


def _check(path: Path) -> None:
    """UserError where a line within the journal isn't what Optuna wrote."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                whole = isinstance(json.loads(line), dict)
            except ValueError:
                whole = not line.endswith(b"\n")  # being written now
            if not whole:
                raise UserError(
                    f"{path}: damaged in line {number}, expected a line of Optuna's journal; put a "
                    "copy in its place, or remove it to search anew."
                )


def _with_driver(url: str) -> str:
    """The URL, naming the driver that is installed where it names none."""
    if url.startswith("postgresql://") and find_spec("psycopg2") is None:
        return url.replace("postgresql://", "postgresql+psycopg://", 1)
    if url.startswith("mysql://") and find_spec("MySQLdb") is None:
        return url.replace("mysql://", "mysql+pymysql://", 1)
    return url


def _database(url: str) -> RDBStorage:
    """A database; its tables are made by whichever worker comes first, on whichever host."""
    from sqlalchemy.exc import DBAPIError

    for attempt in range(RACES):
        try:
            return RDBStorage(url)
        except DBAPIError as error:
            unreachable = type(error).__name__ == "OperationalError" and "lock" not in str(error)
            if unreachable or attempt == RACES - 1:
                raise
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError("returned or raised")


def _of_storage(error: Exception) -> bool:
    names = {f"{kind.__module__.partition('.')[0]}" for kind in type(error).__mro__}
    return (
        isinstance(error, StorageInternalError)
        or _is_missing(error)
        or bool(names & {"sqlalchemy", "redis"})
    )


def _is_missing(error: Exception) -> bool:
    """Whether a driver isn't installed."""
    return isinstance(error, ImportError)

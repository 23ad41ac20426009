"""Places that can't be written: refused before the work, or named in a sentence when it happens."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.errors import UserError

# what the system says of a place without room, and of one where nothing can be written; what only
# reads gets the latter too
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
REFUSALS = (
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
)
PROBE = bytes(2**16)


@contextmanager
def naming_unwritable(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Inside the block, what the system refuses to write is a UserError that names `path`.

    Args:
        path: file or folder that is written.
        temporary: the file that stands for it meanwhile. Libraries report a full disk in errors of
            their own; where one fails, this file is tried.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = _why(error, Path(path))
        if reason is None and temporary is not None and getattr(error, "errno", None) is None:
            reason = _tried(temporary)
        if reason is None:
            raise
        raise _unwritable(path, reason) from None


def check_folder(path: Path) -> None:
    """Refuse a folder in which nothing could be written, before it is made.

    Raises:
        UserError: it is a file, lies below one, or can't be written to.
    """
    place = Path(path)
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        found = "a file" if place.is_file() else "no folder"
        raise UserError(
            f"{path}: expected a folder to write to, {place} is {found}; name another folder."
        )
    try:
        with tempfile.TemporaryDirectory(prefix=".hsam-", dir=place) as folder:
            _try_to_write(Path(folder, "probe"), "wb")
    except OSError as error:
        raise refusal(path, error) from None


def check_file(path: Path) -> None:
    """Refuse a file that could not be written.

    Raises:
        UserError: it is a folder, a device or a pipe, or its folder can't be written to.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        found = "a folder" if path.is_dir() else "a device or pipe"
        raise UserError(f"{path}: expected a file to write, it is {found}; name another file.")
    check_folder(path.parent)


def refusal(path: Path, error: OSError) -> UserError:
    """The error on a file or folder that the system refuses to write."""
    return _unwritable(path, _reason(error))


def system_problem(error: OSError) -> str:
    """The sentence on a refusal of the system that nothing else has explained."""
    where = "a file" if error.filename is None else os.fsdecode(error.filename)
    return f"{where}: can't be read or written ({_reason(error).lower()}); look at it and its disk."


def _unwritable(path: Path, reason: str) -> UserError:
    return UserError(
        f"{path}: can't be written ({reason.lower()}); make room or change its rights, or name "
        "another place."
    )


def _why(error: Exception, path: Path) -> str | None:
    """Why `path` can't be written; None where the error says something else."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        reasons = [str(reason) for *_, reason in error.args[0]]  # a (source, target, reason) each
        return reasons[0] if reasons else None
    if isinstance(error, OSError) and error.errno in (*FULL, *REFUSALS):
        named = None if error.filename is None else Path(os.fsdecode(error.filename))
        about = named is None or named.is_relative_to(path.parent) or path.is_relative_to(named)
        # a copy names what it reads even where there is no room for what it writes
        return os.strerror(error.errno) if about or error.errno in FULL else None
    return next((why for why in map(os.strerror, FULL) if why in str(error)), None)


def _reason(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else " ".join(str(error).split())


def _tried(path: Path) -> str | None:
    """Why nothing can be written to a file or folder; None where it can."""
    try:
        _try_to_write(path / "probe" if path.is_dir() else path, "ab")
    except OSError as error:
        return _reason(error)
    return None


def _try_to_write(path: Path, mode: str) -> None:
    with open(path, mode) as file:
        file.write(PROBE)
        file.flush()
        os.fsync(file.fileno())

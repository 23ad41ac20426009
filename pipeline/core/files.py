"""Files written whole or not at all, and their hashes."""

import codecs
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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

# byte order marks, which editors on Windows write, to encodings; the longest first
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes its place when the block ends without error.

    The temporary name keeps the suffix of `path`, since several writers choose a format by it.

    Raises:
        UserError: the file can't be written, say on a full disk; what stood at `path` stays.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:100]}-", dir=path.parent))
    except OSError as error:
        raise UserError(unwritable(path, _reason(error))) from None
    temporary = folder / path.name
    try:
        with naming_unwritable(path, temporary):
            yield temporary
            os.replace(temporary, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
        reason = _refusal(error, Path(path))
        if reason is None and temporary is not None and getattr(error, "errno", None) is None:
            reason = _tried(temporary)
        if reason is None:
            raise
        raise UserError(unwritable(path, reason)) from None


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
        raise UserError(unwritable(path, _reason(error))) from None


def check_file(path: Path) -> None:
    """Refuse a file that could not be written; raises as `check_folder`."""
    path = Path(path)
    if path.exists() and not path.is_file():
        found = "a folder" if path.is_dir() else "a device or pipe"
        raise UserError(f"{path}: expected a file to write, it is {found}; name another file.")
    check_folder(path.parent)


def unwritable(path: Path | str, reason: str) -> str:
    """The sentence on a file or folder that can't be written."""
    return (
        f"{path}: can't be written ({reason.lower()}); make room or change its rights, or name "
        "another place."
    )


def system_problem(error: OSError) -> str:
    """The sentence on a refusal of the system that nothing else has explained."""
    where = "a file" if error.filename is None else os.fsdecode(error.filename)
    return f"{where}: can't be read or written ({_reason(error).lower()}); look at it and its disk."


def _refusal(error: Exception, path: Path) -> str | None:
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


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; NaN and infinity are refused with ValueError."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """SHA-256 of a JSON-serialisable value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def replace_folder(new: Path, target: Path) -> None:
    """Put the finished folder `new` in the place of `target` by renaming.

    Both must lie on one file system. What stood at `target` is moved aside first, so an
    interruption leaves the old folder, none, or the new one, never a mixture.
    """
    with naming_unwritable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
        try:
            if target.exists():
                os.rename(target, aside / target.name)
            os.rename(new, target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def read_json(path: Path) -> Any:
    """The value in a JSON file; FileNotFoundError or ValueError when there is none."""
    try:
        return json.loads(read_text(path))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, or of one in the encoding that its byte order mark names.

    Raises:
        FileNotFoundError, ValueError: there is none, or it isn't text.
    """
    content = Path(path).read_bytes()
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            return content.decode(encoding)
    return content.decode("utf-8")

"""Files written whole or not at all, their hashes, and texts in any Unicode encoding."""

import codecs
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.writable import naming_unwritable, refusal

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
        raise refusal(path, error) from None
    temporary = folder / path.name
    try:
        with naming_unwritable(path, temporary):
            yield temporary
            os.replace(temporary, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def entries(folder: Path) -> list[Path]:
    """What lies directly in a folder, sorted.

    Raises:
        UserError: the system refuses to list it or to reach what is in it.
    """
    try:
        if not os.access(folder, os.X_OK):  # its names alone may be listed
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return sorted(Path(folder).iterdir())
    except OSError as error:
        reason = str(error.strerror or error).lower()
        raise UserError(
            f"{folder}: the folder can't be read ({reason}); change its rights or leave it out."
        ) from None


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


def sha256_of(paths: Sequence[Path]) -> str:
    """SHA-256 of a file, or over those of several, such as a header and its voxels.

    Raises:
        UserError: one can't be read.
    """
    try:
        hashes = [sha256(path) for path in paths]
    except OSError as error:
        raise UserError(f"{error.filename}: can't be read ({error.strerror}).") from None
    return hashes[0] if len(hashes) == 1 else digest(hashes)


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


@contextmanager
def staged_folder(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`; it takes its place when the block ends without error.

    Args:
        target: what stands there goes then, and stays after an error.

    Raises:
        UserError: the folder can't be written.
    """
    with naming_unwritable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name[:100]}-new-", dir=target.parent))
    try:
        new = staging / target.name
        new.mkdir()
        yield new
        replace_folder(new, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def atomic_folder(target: Path, option: str) -> Iterator[Path]:
    """As `staged_folder`, for a target that must not be there yet, or be empty.

    Args:
        target: the folder.
        option: that names another one, for the message.

    Raises:
        UserError: something is there, or the folder can't be written.
    """
    target = Path(target)
    if target.exists() and not (target.is_dir() and not entries(target)):
        raise UserError(f"{target}: expected a new or an empty folder; {option}.")
    with staged_folder(target) as new, naming_unwritable(target):
        yield new


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        FileNotFoundError, ValueError: there is none, or a key is there twice in one mapping.
    """
    try:
        return json.loads(read_text(path), object_pairs_hook=_mapping)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The pairs as a mapping; of a key that is there twice, JSON's readers silently keep one."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} is there twice")
    return mapping


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

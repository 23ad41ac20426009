"""Downloading one file of known size and SHA-256: resumed, checked, and renamed when it is whole.

What has arrived lies beside the target as NAME.part. It stays where a download ends early, and the
next one goes on behind it.
"""

import errno
import http.client
import os
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hsam.weights.foreign import text_instead
from pipeline.core import files, locks
from pipeline.core.console import say, steps
from pipeline.core.errors import UserError
from pipeline.core.writable import naming_unwritable

SCHEMES = ("https", "http", "file")
TRIES = 4  # without a new byte
PAUSE, TIMEOUT = 2.0, 30.0  # seconds: before the second try, twice that before the third; of a read
MIB = 2**20
LINES = 10.0  # seconds between two lines of a log file
# answers of a server that another try may change
PASSING = (408, 425, 429, 500, 502, 503, 504)
PAGES = ("text/html", "application/xhtml+xml")


class _Failed(Exception):
    """A try failed, for the reason that it says.

    Attributes:
        final: whether another try would fail too.
    """

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def fetch(
    url: str, target: Path, size: int, sha256: str, advice: str, *, pause: float = PAUSE
) -> None:
    """Download a file; `target` appears, or is replaced, when its content is the expected one.

    Args:
        url: with the scheme https, http or file.
        target: where to.
        size: bytes.
        sha256: of the content.
        advice: what the user can do where it can't be had, for messages.
        pause: seconds before the second try.

    Raises:
        UserError: no connection, another answer than the file, or a place that can't be written;
            what has arrived stays.
    """
    if url.partition(":")[0].lower() not in SCHEMES:
        raise UserError(f"{url}: expected an address with {', '.join(SCHEMES)}; {advice}.")
    part, lock = (
        target.with_name(name) for name in (f"{target.name}.part", f".{target.name}.lock")
    )
    with naming_unwritable(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        release = locks.try_lock(lock)
    if release is None:
        raise UserError(f"{target}: another process is downloading it; wait for it.")
    try:
        with naming_unwritable(target):
            _fetch(url, part, size, sha256, advice, pause)
            os.replace(part, target)
    finally:
        with suppress(OSError):  # Windows keeps a file that is open
            lock.unlink()
        release()


def _fetch(url: str, part: Path, size: int, sha256: str, advice: str, pause: float) -> None:
    """Fill the part, in as many tries as bring something new."""
    failures, other = 0, False
    while True:
        before = _size(part)
        try:
            _check_room(part, size - before)
            if before < size:
                _try(url, part, size)
            if (found := _other_content(part, sha256)) is None:
                return
            part.unlink()  # going on behind it can't mend it
            # once it may be what an earlier download left, twice it is what the server has
            final, other = other, True
            raise _Failed(f"what came {found}", final=final)
        except _Failed as failed:
            failures = 0 if _size(part) > before else failures + 1
            if failed.final or failures >= TRIES:
                kept = f", {_size(part):,} of {size:,} bytes are kept" if _size(part) else ""
                raise UserError(f"{url}: {failed}{kept}; {advice}.") from None
            seconds = pause * 2 ** max(failures - 1, 0)
            say(f"{part.name.removesuffix('.part')}: {failed}; again in {seconds:g} seconds")
            time.sleep(seconds)


def _try(url: str, part: Path, size: int) -> None:
    """One connection: write what it brings behind what is there, or from the beginning."""
    start = _size(part)
    headers = {"User-Agent": "hsam", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with _opener().open(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT
        ) as answer:
            start = _first_byte(answer, start)
            _check_length(answer, size - start)
            with open(part, "r+b" if start else "wb") as file:
                file.seek(start)
                file.truncate()
                _copy(answer, file, part.name.removesuffix(".part"), start, size)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is longer than the file there
            part.unlink(missing_ok=True)
        passing = error.code in (*PASSING, 416)
        reason = f"the server answers {error.code} ({error.reason})"
        raise _Failed(reason, final=not passing) from None
    except urllib.error.URLError as error:
        raise _no_connection(url, error.reason) from None
    except ValueError as error:
        raise _Failed(f"is no address ({error})", final=True) from None
    except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _Failed(f"the connection was lost ({reason})") from None


def _opener() -> urllib.request.OpenerDirector:
    """What opens addresses of SCHEMES, through the environment's proxies, and no others."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.FileHandler,
    ):
        opener.add_handler(handler())
    return opener


def _no_connection(url: str, reason: Any) -> _Failed:
    """Why nothing answered: for good where there is no such host, file or scheme."""
    if isinstance(reason, FileNotFoundError) or urlsplit(url).scheme == "file":
        return _Failed("there is no such file", final=True)
    text = " ".join(str(getattr(reason, "strerror", None) or reason).split())
    unreachable = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH)
    final = isinstance(reason, socket.gaierror | ssl.SSLCertVerificationError)
    final = final or getattr(reason, "errno", None) in unreachable
    return _Failed(f"no connection to {urlsplit(url).netloc} ({text.lower()})", final=final)


def _first_byte(answer: Any, asked: int) -> int:
    """Where in the file an answer begins: where it was asked to, or at 0 where it can't."""
    if answer.headers.get_content_type() in PAGES:
        raise _Failed("the server answers with a web page instead of the file")
    if getattr(answer, "status", None) != 206:
        return 0
    begins = answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    if begins != str(asked):
        raise _Failed(f"asked for the bytes from {asked}, the server sends those from {begins}")
    return asked


def _check_length(answer: Any, expected: int) -> None:
    """Refuse an answer of another length, where it says one."""
    length = answer.headers.get("Content-Length")
    if length is not None and length != str(expected):
        raise _Failed(f"expected {expected:,} bytes, the server has {length} for it")


def _copy(answer: Any, file: Any, name: str, start: int, size: int) -> None:
    """Write an answer's bytes to a file, from `start` to `size`, and show how far it is."""
    done = start
    with steps(f"{name}, MiB", _mib(size), _mib(done), LINES) as bar:
        while block := answer.read1(MIB):
            if done + len(block) > size:
                raise _Failed(f"the server sends more than the expected {size:,} bytes")
            file.write(block)
            if count := _mib(done + len(block)) - _mib(done):
                bar.advance(count=count)
            done += len(block)
    if done < size:
        raise _Failed(f"the connection was cut after {done:,} of {size:,} bytes")


def _other_content(part: Path, sha256: str) -> str | None:
    """What a whole part is instead of the expected file; None: it is that file."""
    if (text := text_instead(part)) is not None:
        return f"is {text.partition(':')[0]}"
    found = files.sha256(part)
    return None if found == sha256 else f"has SHA-256 {found}, expected {sha256}"


def _check_room(part: Path, wanted: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < wanted:
        raise UserError(
            f"{part.parent}: {_mib(wanted):,} MiB are needed, {free // MIB:,} MiB are free; make "
            "room or name another place."
        )


def _size(part: Path) -> int:
    """Bytes that have arrived."""
    return part.stat().st_size if part.exists() else 0


def _mib(size: int) -> int:
    """Bytes in whole MiB, rounded up."""
    return -(-size // MIB)

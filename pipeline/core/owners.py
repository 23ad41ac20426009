"""Who works in a folder, where the hosts that share it may not see each other's locks.

A kernel lock (`pipeline.core.locks`) settles that on one host. On a network file system it may
reach no further, and an option of the mount decides it. So the one who holds the lock also keeps a
record in the folder, and writes it anew every few seconds. One on another host who got the lock too
takes the folder over only after the record has stayed as it was for `SILENCE`, by its own clock:
the hosts' clocks needn't agree. Whoever finds that its record was taken over ends at once.
"""

import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.core.console import say

RECORD = ".owner.json"
# a file system shows a new content of a file at the latest when the file is opened again; the rest
# is for an owner whose host is busy
BEAT, SILENCE = 10.0, 60.0
TAKEN_OVER = 75  # exit status: try again later


@contextmanager
def owning(folder: Path, *, silence: float = SILENCE, beat: float = BEAT) -> Iterator[None]:
    """Keep the record of this process in a folder whose kernel lock it holds.

    Args:
        folder: the folder.
        silence: seconds for which the record of another host's owner must not have changed.
        beat: seconds between two changes of one's own.
    """
    path = folder / RECORD
    _wait_for_silence(path, silence)
    me: dict[str, Any] = {"host": platform.node(), "kernel": _kernel()}
    me |= {"pid": os.getpid(), "since": time.time_ns()}
    _write(path, me | {"beat": 0})
    ended = threading.Event()
    keeper = threading.Thread(target=_keep, args=(path, me, beat, ended), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()
        if _is_mine(_read(path), me):
            path.unlink(missing_ok=True)


def _wait_for_silence(path: Path, silence: float) -> None:
    """Return once no other host's owner is at work, by its record."""
    found = _read(path)
    if found is None or found.get("kernel") == _kernel():
        return  # one under this kernel would hold the lock
    host = found.get("host", "an unknown host")
    say(
        f"{path.parent}: a process on {host} was at work here and hasn't said that it "
        f"ended; waiting {silence:g} seconds for a sign of it"
    )
    since = time.monotonic()
    while time.monotonic() - since < silence:
        time.sleep(min(1.0, silence / 4))
        now = _read(path)
        if now is None:
            return
        if now != found:
            found, since = now, time.monotonic()


def _keep(path: Path, me: dict[str, Any], beat: float, ended: threading.Event) -> None:
    """Change the record at every beat; end the process if it is another's."""
    turn = 0
    while not ended.wait(beat):
        found = _read(path)
        if found and not _is_mine(found, me):  # an unreadable one is nobody's: written anew below
            say(f"{path.parent}: taken over by a process on {found.get('host')}; this one ends")
            os._exit(TAKEN_OVER)
        turn += 1
        with suppress(OSError):  # what is wrong with the disk is said by the work itself
            _write(path, me | {"beat": turn})


def _write(path: Path, value: dict[str, Any]) -> None:
    """Replace the record; a killed owner leaves one temporary file at most."""
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(value), encoding="utf-8")
    os.replace(new, path)


def _kernel() -> str:
    """What tells this running kernel from others: containers share it, hosts may be namesakes."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux
        return platform.node()


def _is_mine(found: dict[str, Any] | None, me: dict[str, Any]) -> bool:
    return found is not None and all(found.get(key) == value for key, value in me.items())


def _read(path: Path) -> dict[str, Any] | None:
    """The record; None: there is none. One that can't be read says nothing of its owner."""
    try:
        found = files.read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}

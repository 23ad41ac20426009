"""A lease on GPUs: concurrent jobs on one host never share a device.

Snakemake hands out a number of GPUs, not which. Each job therefore takes kernel file locks, one
per device, for as long as it lives. The processes that it starts for a training (one a GPU, data
loader workers) hold them too, so a device is free again only when all of them are gone, however
they ended; there is nothing to clean up after a crash.
"""

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pipeline.core import locks
from pipeline.core.console import say
from pipeline.core.errors import UserError

# "cpu" or "cuda", or what leases one and says which: called when there is work to do on it
Device = str | Callable[[], str]
NO_DEVICE = ("-1", "NoDevFiles")  # schedulers' names for none; CUDA stops reading there

_held: dict[Path, locks.Release] = {}


def lease(need: int, *, folder: Path | None = None, poll_seconds: float = 0.2) -> list[str]:
    """Take `need` GPUs for this process and its children and set CUDA_VISIBLE_DEVICES to them.

    Call it before CUDA is initialised. A CUDA_VISIBLE_DEVICES that a cluster scheduler or the
    user has set bounds the choice, and its devices keep the names that it gives them. Waits until
    enough devices are free.

    Args:
        need: devices wanted; 0 hides all of them, so that the job runs on the CPU.
        folder: where the lock files lie: a local disk, the same for all jobs of the host.
        poll_seconds: pause between two attempts.

    Returns:
        The devices taken, as CUDA_VISIBLE_DEVICES names them; empty when there is none.

    Raises:
        UserError: fewer devices exist than are needed (but some do).
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    cards = _cards() if need and given != "" else {}
    devices = list(cards) if given is None else _named(given)
    if need == 0 or not devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return []
    unique: dict[str, str] = {}  # an index and a UUID may name one card
    for device in devices:
        unique.setdefault(_card(device, cards), device)
    if len(unique) < need:
        raise UserError(
            f"{need} GPUs are needed, {len(unique)} can be seen ({', '.join(unique.values())}); "
            "ask for fewer or widen CUDA_VISIBLE_DEVICES."
        )
    taken = _wait(unique, need, folder or _lock_folder(), poll_seconds)
    # nvidia-smi counts in bus order, CUDA by default in order of speed
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
    return taken


def settled(device: Device) -> str:
    """ "cpu" or "cuda": the device as it was named, or leased here."""
    return device if isinstance(device, str) else device()


def visible() -> int:
    """How many GPUs this process could lease, found without PyTorch."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return len(_cards()) if given is None else len(_named(given))


def _wait(devices: Mapping[str, str], need: int, folder: Path, poll_seconds: float) -> list[str]:
    """Names of `need` devices, given those of all by card, once their cards are locked."""
    if not locks.CHILDREN_HOLD:
        say("on this system a killed job's data workers may still use a GPU that counts as free")
    waiting = False
    while True:
        taken: list[str] = []
        new: dict[Path, locks.Release] = {}
        for card, device in devices.items():
            path = folder / f"gpu-{re.sub('[^A-Za-z0-9.-]', '_', card)}.lock"
            if path not in _held:  # by an earlier lease of this process
                release = locks.try_lock(path)
                if release is None:
                    continue
                new[path] = release
            taken.append(device)
            if len(taken) == need:
                _held.update(new)
                return taken
        # all or none: two jobs that each hold a part would wait for each other
        for release in new.values():
            release()
        if not waiting:
            say(f"waiting for {need} of {len(devices)} GPUs to be free")
            waiting = True
        time.sleep(poll_seconds)


def _named(visible: str) -> list[str]:
    """The devices that a value of CUDA_VISIBLE_DEVICES names."""
    names = []
    for name in visible.split(","):
        if name.strip() in NO_DEVICE:
            break
        if name.strip():
            names.append(name.strip())
    return names


def _card(device: str, cards: Mapping[str, str]) -> str:
    """What tells a device from all others: its UUID; where nvidia-smi has none, its name.

    Args:
        device: an index, or a UUID or its beginning; a part of a card (MIG) has a UUID of its own.
        cards: index to UUID.
    """
    if device in cards:
        return cards[device]
    found = [card for card in cards.values() if device and card.startswith(device)]
    return found[0] if len(found) == 1 else device


def _cards() -> dict[str, str]:
    """Index to UUID of every GPU that nvidia-smi lists, in bus order; empty without it."""
    command = ["nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = (line.partition(",") for line in done.stdout.splitlines() if line.strip())
    return {index.strip(): uuid.strip() or index.strip() for index, _, uuid in rows}


def _lock_folder() -> Path:
    """A private folder on the local disk; a scheduler's jobs number their devices on their own."""
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("PBS_JOBID") or "host"
    user = os.getuid() if hasattr(os, "getuid") else None  # Windows: the folder is a user's own
    parts = ("hsam-gpu", user, "".join(filter(str.isalnum, job)))
    folder = Path(tempfile.gettempdir()) / "-".join(str(part) for part in parts if part is not None)
    folder.mkdir(mode=0o700, exist_ok=True)
    if user is not None and (folder.is_symlink() or folder.stat().st_uid != user):
        raise UserError(f"{folder}: belongs to somebody else; remove it or set TMPDIR.")
    return folder

"""A lease on GPUs: concurrent jobs on one host never share a device.

Snakemake hands out a number of GPUs, not which. Each job therefore takes kernel file locks, one
per device, for as long as it lives. The processes it forks (data loader workers) hold them too,
so a device is free again only when all of them are gone, however they ended; there is nothing to
clean up after a crash.
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path

from pipeline.core import locks
from pipeline.core.console import say
from pipeline.core.errors import UserError

_held: list[locks.Release] = []


def lease(need: int, *, folder: Path | None = None, poll_seconds: float = 0.2) -> list[str]:
    """Take `need` GPUs for this process and its children and set CUDA_VISIBLE_DEVICES to them.

    Call it before CUDA is initialised. A CUDA_VISIBLE_DEVICES that a cluster scheduler or the
    user has set is respected: with no more devices than needed it is used as it is, with more
    the lease is among those. Waits until enough devices are free.

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
    devices = _devices() if given is None else [name for name in given.split(",") if name.strip()]
    if need == 0 or not devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return []
    if len(devices) < need:
        raise UserError(
            f"{need} GPUs are needed, {len(devices)} can be seen ({', '.join(devices)}); "
            "ask for fewer or widen CUDA_VISIBLE_DEVICES."
        )
    if given is not None and len(devices) == need:
        return devices
    taken = _wait(devices, need, folder or _lock_folder(), poll_seconds)
    # nvidia-smi counts in bus order, CUDA by default in order of speed
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
    return taken


def _wait(devices: list[str], need: int, folder: Path, poll_seconds: float) -> list[str]:
    if not locks.CHILDREN_HOLD:
        say("on this system a killed job's data workers may still use a GPU that counts as free")
    waiting = False
    while True:
        taken: dict[str, locks.Release] = {}
        for device in devices:
            release = locks.try_lock(folder / f"gpu-{device}.lock", inheritable=True)
            if release is not None:
                taken[device] = release
            if len(taken) == need:
                _held.extend(taken.values())
                return list(taken)
        # all or none: two jobs that each hold a part would wait for each other
        for release in taken.values():
            release()
        if not waiting:
            say(f"waiting for {need} of {len(devices)} GPUs to be free")
            waiting = True
        time.sleep(poll_seconds)


def _devices() -> list[str]:
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split()


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

"""A full disk, and too little shared memory, in a mount namespace of the process's own.

`unshare` gives one without privileges on most Linux systems; elsewhere nothing is tried.
"""

import subprocess
from pathlib import Path

from tests.soak.outcome import Outcome
from tests.soak.stages import Workspace

SECONDS = 120  # after which a command counts as hanging
TRACE = "Traceback (most recent call last)"


def possible() -> bool:
    """Whether a file system can be mounted here."""
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def in_mount(
    space: Workspace, place: Path, kib: int, command: list[str]
) -> subprocess.CompletedProcess[str]:
    """Run a command where `place` is a file system of `kib` KiB.

    Raises:
        subprocess.TimeoutExpired: it hangs.
    """
    script = 'mount -t tmpfs -o size="$1"k tmpfs "$2" && shift 2 && exec "$@"'
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", str(kib), str(place), *command],
        cwd=space.folder,
        env=space.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def fill_disks(space: Workspace, stages: tuple[str, ...], sizes: tuple[int, ...]) -> Outcome:
    """Run stages whose run folder and outputs lie on file systems of a few KiB.

    Args:
        space: where all stages have run.
        stages: to run.
        sizes: of the file system, KiB.
    """
    failures = []
    place = space.folder / "small"
    place.mkdir(exist_ok=True)
    for stage in stages:
        for kib in sizes:
            before = space.published(stage)
            # the outputs go to the usual place, what they are made from to the small one
            command = space.command(stage, "--runs", "small/runs")
            done = in_mount(space, place, kib, command)
            said = done.stdout + done.stderr
            if done.returncode not in (0, 2) or TRACE in said:
                failures.append(f"{stage} on {kib} KiB: {done.returncode}: {said.strip()[-300:]}")
            elif done.returncode == 2 and space.published(stage) != before:
                failures.append(f"{stage} on {kib} KiB: the old outputs changed")
    tried = len(stages) * len(sizes)
    return Outcome("full disk: one sentence, old outputs as they were", tried, tuple(failures))


def train_without_shared_memory(space: Workspace, sizes: tuple[int, ...]) -> Outcome:
    """Train with data workers where /dev/shm has a few KiB; a training that hangs has failed.

    Args:
        space: where the stages before training have run, its parameters asking for workers.
        sizes: of /dev/shm, KiB.
    """
    failures = []
    for kib in sizes:
        space.forget("train")
        try:
            done = in_mount(space, Path("/dev/shm"), kib, space.command("train"))
        except subprocess.TimeoutExpired:
            failures.append(f"/dev/shm of {kib} KiB: hangs")
            continue
        said = done.stdout + done.stderr
        if done.returncode not in (0, 2) or TRACE in said:
            failures.append(f"/dev/shm of {kib} KiB: {done.returncode}: {said.strip()[-300:]}")
    return Outcome("training with workers in a small /dev/shm", len(sizes), tuple(failures))

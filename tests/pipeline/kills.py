"""Parents that are killed at random moments, and what they leave behind."""

import random
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from pipeline.core import locks

PATIENCE = 5.0  # seconds after which nothing may be left


def running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def writes(process: psutil.Process) -> bool:
    """Whether it runs what was given to `multiprocessing`, not one of its own helpers."""
    try:
        return running(process) and "spawn_main" in " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False


def children(parent: subprocess.Popen) -> list[psutil.Process]:
    """Those of a process and theirs; none when it has ended."""
    try:
        return psutil.Process(parent.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def killed_parents(
    command: Sequence[str],
    lock: Callable[[], Path | None],
    longest: float,
    count: int,
    seed: int,
) -> int:
    """Start a command, kill it once it has children, and look at what it leaves.

    Args:
        command: takes a lock and starts processes that write, by `multiprocessing`.
        lock: the lock's file, None as long as there is none.
        longest: time from the first child to the kill, seconds.
        count: how often.
        seed: of the moments.

    Returns:
        Processes that were running when their parents were killed.

    Raises:
        AssertionError: the lock is free while one of its processes runs, or one is left.
    """
    found = 0
    chance = random.Random(seed)
    for _ in range(count):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
            family: list[psutil.Process] = []
            while not family and parent.poll() is None:
                family = children(parent)
            time.sleep(longest * chance.random())
            family = children(parent)
            parent.kill()
        found += len(family)
        path = lock()
        deadline = time.monotonic() + PATIENCE
        while alive := [process for process in family if running(process)]:
            release = None if path is None else locks.try_lock(path)
            if release is not None:
                assert not [one for one in alive if writes(one)], "free, with a writer left"
                release()
            assert time.monotonic() < deadline, f"left after {PATIENCE} s: {alive}"
            time.sleep(0.01)
    return found


def kill_after(process: subprocess.Popen, seconds: float) -> list[str]:
    """Kill a process after a while, if it is still there.

    Returns:
        The command lines of children, at whatever depth, that outlived it; they are killed then.
    """
    try:
        process.wait(seconds)
        return []
    except subprocess.TimeoutExpired:
        pass
    family = children(process)
    process.kill()
    process.wait()
    _, left = psutil.wait_procs(family, timeout=PATIENCE)
    survivors = []
    for child in filter(running, left):
        try:
            survivors.append(" ".join(child.cmdline())[:200])
            child.kill()
        except psutil.NoSuchProcess:
            continue
    return survivors

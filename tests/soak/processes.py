"""Killing a process, and seeing what it leaves behind."""

import subprocess

import psutil

GONE_SECONDS = 5  # until which every child of a killed process has to be gone


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
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    process.kill()
    process.wait()
    _, left = psutil.wait_procs(children, timeout=GONE_SECONDS)
    survivors = []
    for child in left:
        try:
            if child.status() == psutil.STATUS_ZOMBIE:
                continue  # dead, and not yet collected by whoever adopted it
            survivors.append(" ".join(child.cmdline())[:200])
            child.kill()
        except psutil.NoSuchProcess:
            continue
    return survivors

"""What a killed process leaves behind: nothing that runs, and no lock that counts as free."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipeline.core import locks
from tests.pipeline.kills import killed_parents, running

KILLS = 20
# two processes append to a file as long as they live, under a lock that their parent took
WRITERS = """
import multiprocessing, sys, time
from pathlib import Path
from pipeline.core import children, locks

def write(path):
    while True:
        with open(path, "a") as file:
            file.write(".")
        time.sleep(0.001)

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    release = locks.try_lock(folder / ".lock")
    print("held" if release else "refused", flush=True)
    if release:
        children.bind()
        context = multiprocessing.get_context("spawn")
        for number in range(2):
            context.Process(target=write, args=(folder / f"{number}",)).start()
        print("started", flush=True)
        time.sleep(60)
"""

# the child doesn't follow its parent
HANDING = """
import multiprocessing, os, sys, time
from pathlib import Path
from pipeline.core import locks

class Handed:
    def __reduce__(self):
        return locks.take_over, (locks.handed(),)

def child(handed):
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    release = locks.try_lock(Path(sys.argv[1]) / ".lock")
    multiprocessing.get_context("spawn").Process(target=child, args=(Handed(),)).start()
    time.sleep(60)
"""


@pytest.fixture
def writers(tmp_path) -> Path:
    path = tmp_path / "writers.py"
    path.write_text(WRITERS)
    return path


def test_no_writer_outlives_its_parent_nor_the_lock(writers, tmp_path):
    (tmp_path / "run").mkdir()
    command = [sys.executable, str(writers), str(tmp_path / "run")]
    lock = tmp_path / "run" / ".lock"
    assert killed_parents(command, lambda: lock, 0.4, KILLS, seed=1)
    assert (tmp_path / "run" / "0").exists()


def test_a_process_that_was_handed_the_lock_holds_it_until_it_ends(tmp_path):
    program = tmp_path / "handing.py"
    program.write_text(HANDING)
    with subprocess.Popen(
        [sys.executable, str(program), str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert running(child)
    assert locks.try_lock(tmp_path / ".lock") is None
    child.kill()
    deadline = time.monotonic() + 5
    while (release := locks.try_lock(tmp_path / ".lock")) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    release()


def test_a_lock_file_that_was_replaced_is_locked_anew(tmp_path, monkeypatch):
    path = tmp_path / "a.lock"
    flock, removed = locks.fcntl.flock, []

    def removing(descriptor, how):
        if not removed:
            path.unlink()
            removed.append(1)
        flock(descriptor, how)

    monkeypatch.setattr(locks.fcntl, "flock", removing)
    release = locks.try_lock(path)
    assert locks.try_lock(path) is None
    release()

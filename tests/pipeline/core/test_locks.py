import subprocess
import sys

import pytest

from pipeline.core import locks

HOLDER = """
import sys
from pathlib import Path
from pipeline.core import locks
release = locks.try_lock(Path(sys.argv[1]))
print("held" if release else "refused", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=["flock", "filelock"])
def code(request, monkeypatch):
    """What a process runs that takes a lock: on Linux, and as on a system without fcntl."""
    if request.param == "flock":
        return HOLDER
    monkeypatch.setattr(locks, "fcntl", None)
    return "import sys; sys.modules['fcntl'] = None\n" + HOLDER


def start(code: str, path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.said = process.stdout.readline().strip()
    return process


def test_one_process_holds_a_lock_until_it_ends(tmp_path, code):
    path = tmp_path / "a.lock"
    with start(code, path) as first:
        assert first.said == "held"
        with start(code, path) as second:
            assert second.said == "refused"
            second.communicate("\n")
        first.communicate("\n")
    with start(code, path) as third:
        assert third.said == "held"
        third.communicate("\n")


def test_a_lock_is_free_again_when_released(tmp_path, code):
    release = locks.try_lock(tmp_path / "a.lock")
    assert locks.try_lock(tmp_path / "a.lock") is None
    release()
    again = locks.try_lock(tmp_path / "a.lock")
    assert again is not None
    again()


@pytest.mark.skipif(locks.fcntl is None, reason="the system shares no locks")
def test_a_shared_lock_keeps_out_those_that_do_not_share(tmp_path):
    path = tmp_path / "a.lock"
    first, second = (locks.try_lock(path, shared=True) for _ in range(2))
    assert first and second and locks.try_lock(path) is None
    first()
    assert locks.try_lock(path) is None
    second()
    alone = locks.try_lock(path)
    assert alone and locks.try_lock(path, shared=True) is None
    alone()

"""Hosts that don't see each other's locks never work in one folder; the other is its record."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipeline.core.owners import RECORD, TAKEN_OVER, owning

OTHER = {"host": "another-host", "kernel": "another", "pid": 1, "since": 1}
# a mount without locks: flock answers as the kernel does there
NO_LOCKS = """
#include <errno.h>
int flock(int descriptor, int operation) { errno = ENOLCK; return -1; }
"""


def write(folder: Path, beat: int) -> None:
    new = folder / "another.new"
    new.write_text(json.dumps(OTHER | {"beat": beat}))
    os.replace(new, folder / RECORD)


def test_the_record_is_there_while_the_work_is_done_and_changes(tmp_path):
    with owning(tmp_path, beat=0.01):
        first = (tmp_path / RECORD).read_text()
        for _ in range(1000):
            if (tmp_path / RECORD).read_text() != first:
                break
            threading.Event().wait(0.01)
        else:
            pytest.fail("the record stays as it is")
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_a_killed_process_of_this_host_is_not_waited_for(tmp_path):
    with owning(tmp_path):
        left = (tmp_path / RECORD).read_text()
    (tmp_path / RECORD).write_text(left)
    with owning(tmp_path, silence=3600):
        pass


def test_another_hosts_folder_is_taken_over_after_its_silence(tmp_path, capsys):
    write(tmp_path, 0)
    with owning(tmp_path, silence=0.1):
        assert json.loads((tmp_path / RECORD).read_text())["host"] != OTHER["host"]
    assert "a process on another-host was at work here" in capsys.readouterr().err


def test_a_folder_is_not_taken_over_while_its_owner_works(tmp_path):
    beats = 20
    write(tmp_path, 0)
    seen = []

    def work() -> None:
        for beat in range(1, beats + 1):
            threading.Event().wait(0.02)
            seen.append(json.loads((tmp_path / RECORD).read_text())["host"])
            write(tmp_path, beat)
        (tmp_path / RECORD).unlink()

    owner = threading.Thread(target=work)
    owner.start()
    with owning(tmp_path, silence=5):
        owner.join()
    assert seen == [OTHER["host"]] * beats


def test_who_was_taken_over_ends_and_leaves_the_record(tmp_path):
    program = (
        "import sys, time; from pathlib import Path; from pipeline.core.owners import owning\n"
        "with owning(Path(sys.argv[1]), beat=0.01):\n    print('here', flush=True)\n"
        "    time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "here\n"
    for _ in range(1000):  # its own beat may replace the record once
        write(tmp_path, 0)
        if process.poll() is not None:
            break
        threading.Event().wait(0.01)
    assert process.wait() == TAKEN_OVER
    assert "taken over by a process on another-host" in process.stderr.read()
    assert json.loads((tmp_path / RECORD).read_text()) == OTHER | {"beat": 0}


def test_a_record_that_cannot_be_read_ends_nobodys_work(tmp_path):
    with owning(tmp_path, beat=0.01):
        (tmp_path / RECORD).write_text("")
        for _ in range(1000):
            if (tmp_path / RECORD).read_text():
                break
            threading.Event().wait(0.01)
        else:
            pytest.fail("the record stays empty")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("cc"), reason="needs Linux and a C compiler"
)
def test_a_file_system_without_locks_is_refused_in_one_sentence(tmp_path):
    library = tmp_path / "nolocks.so"
    compiler = ["cc", "-shared", "-fPIC", "-o", str(library), "-x", "c", "-"]
    subprocess.run(compiler, input=NO_LOCKS, text=True, check=True)
    program = (
        "from pathlib import Path; from pipeline.core import locks\n"
        "from pipeline.core.errors import UserError\n"
        "try: locks.try_lock(Path('x.lock'))\nexcept UserError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"LD_PRELOAD": str(library), "PYTHONPATH": ":".join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("x.lock: its file system gives no locks"), done.stderr

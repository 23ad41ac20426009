import os
import platform
import subprocess
import sys

import pytest

from pipeline.core import cpus

VARIABLES = (*cpus.WAITING, "OMP_NUM_THREADS")


def environment(**own: str) -> dict[str, str]:
    """What `hsam` hands to a process that it starts, with a user's own settings."""
    code = (
        "import os, subprocess, sys; from pipeline.core import cpus\n"
        "assert 'torch' not in sys.modules; cpus.set_thread_defaults()\n"
        "subprocess.run(['env'], check=True)"
    )
    given = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", code], env=given | own, capture_output=True, text=True, check=True
    )
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    return {name: found[name] for name in VARIABLES if name in found}


def test_waiting_threads_soon_sleep_by_default():
    assert environment() == {
        "GOMP_SPINCOUNT": str(cpus.TURNS),
        "OMP_NUM_THREADS": str(cpus.usable()),
    }


@pytest.mark.parametrize(
    "own", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "10000"}, {"KMP_BLOCKTIME": "0"}]
)
def test_a_users_own_setting_wins(own):
    assert environment(OMP_NUM_THREADS="3", **own) == {**own, "OMP_NUM_THREADS": "3"}


def test_only_cores_of_this_process_count():
    code = (
        "import os; from pipeline.core import cpus\n"
        "os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1]); print(cpus.usable())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone is set")
@pytest.mark.parametrize(
    ("call", "own", "kept"),
    [
        ("cpus.keep_freed_memory()", {}, True),
        ("cpus.keep_freed_memory()", {"MALLOC_MMAP_THRESHOLD_": "131072"}, False),
        ("None", {}, False),
    ],
)
def test_freed_memory_is_kept_where_a_user_sets_nothing_else(call, own, kept):
    code = (
        f"import psutil; from pipeline.core import cpus; {call}\n"
        "now = lambda: psutil.Process().memory_info().rss / 2**20\n"
        "before = now(); held = bytearray(200 * 2**20); del held; print(now() - before)"
    )
    given = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=given | own, capture_output=True, text=True, check=True
    )
    assert (float(done.stdout) > 150) == kept

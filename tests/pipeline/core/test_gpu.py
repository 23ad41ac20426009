import os
import subprocess
import sys
import time

import pytest

from pipeline.core import gpu
from pipeline.core.errors import UserError

JOB = """
import os, sys, time
from pathlib import Path
from pipeline.core import gpu
device, = gpu.lease(1, folder=Path(sys.argv[1]), poll_seconds=0.01)
assert os.environ["CUDA_VISIBLE_DEVICES"] == device
mark = os.open(f"{sys.argv[1]}/in-use-{device}", os.O_CREAT | os.O_EXCL)
time.sleep(0.02)
os.unlink(f"{sys.argv[1]}/in-use-{device}")
print(device)
"""

# the job forks a child that outlives it, prints both process ids and waits to be killed
FORKING = """
import os, sys, time
from pathlib import Path
from pipeline.core import gpu
gpu.lease(1, folder=Path(sys.argv[1]))
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    """What a lease sets is undone after each test, where nothing was set before too."""
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "")


def start(code: str, folder, devices: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": devices},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_100_processes_on_4_devices_never_share_one(tmp_path):
    running = [start(JOB, tmp_path, "0,1,2,3") for _ in range(100)]
    results = [(*job.communicate(timeout=120), job.returncode) for job in running]
    assert [code for _, _, code in results] == [0] * 100, results[0][1]
    assert {out.strip() for out, _, _ in results} == {"0", "1", "2", "3"}


def test_a_device_is_held_until_the_children_of_a_killed_job_are_gone(tmp_path, monkeypatch):
    job = start(FORKING, tmp_path, "0,1")
    child = int(job.stdout.readline())
    job.kill()
    job.wait()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "")
    assert gpu.lease(1, folder=tmp_path) == ["1"]
    os.kill(child, 9)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        done = subprocess.run(
            ["flock", "--nonblock", str(tmp_path / "gpu-0.lock"), "true"], check=False
        )
        if done.returncode == 0:
            break
        time.sleep(0.05)
    assert done.returncode == 0


@pytest.fixture
def listing(tmp_path, monkeypatch):
    """Two cards, as nvidia-smi lists them; an empty folder for locks."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "nvidia-smi").write_text("#!/bin/sh\necho '0, GPU-aaaa-1'\necho '1, GPU-bbbb-2'\n")
    (tools / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "")
    folder = tmp_path / "locks"
    folder.mkdir()
    return folder


def waits(folder, devices: str) -> bool:
    """Whether another process that may use these devices has to wait for one."""
    with start(JOB, folder, devices) as job:
        line = job.stderr.readline()
        job.kill()
    return line.startswith("waiting for 1 of ")


def test_a_choice_of_as_many_as_are_needed_is_locked_too(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert gpu.lease(1, folder=tmp_path) == ["5"]
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    assert waits(tmp_path, "5")


def test_index_and_uuid_of_a_card_are_one_lock(listing, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpu.lease(1, folder=listing) == ["1"]
    assert waits(listing, "GPU-bbbb-2")
    assert waits(listing, "GPU-bb")  # a beginning that is unique names it as well
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aaaa-1")
    assert gpu.lease(1, folder=listing) == ["GPU-aaaa-1"]
    assert waits(listing, "0")
    assert waits(listing, "1,0")


def test_a_card_that_is_named_twice_counts_once(listing, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,GPU-aaaa-1")
    with pytest.raises(UserError, match=r"2 GPUs are needed, 1 can be seen \(0\)"):
        gpu.lease(2, folder=listing)


def test_all_cards_that_are_listed_can_be_taken(listing, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu.lease(2, folder=listing) == ["0", "1"]
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_a_second_lease_of_one_process_does_not_wait_for_the_first(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert gpu.lease(1, folder=tmp_path) == ["3"]
    assert gpu.lease(1, folder=tmp_path) == ["3"]


def test_a_part_of_a_card_is_locked_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-GPU-aaaa-1/2/0")
    assert gpu.lease(1, folder=tmp_path) == ["MIG-GPU-aaaa-1/2/0"]
    assert waits(tmp_path, "MIG-GPU-aaaa-1/2/0")


@pytest.mark.parametrize("none", ["", "-1", "NoDevFiles", "-1,0"])
def test_a_scheduler_that_gives_no_device_gives_the_cpu(tmp_path, monkeypatch, none):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
    assert gpu.lease(1, folder=tmp_path) == []


def test_no_gpu_wanted_or_there_means_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert gpu.lease(0, folder=tmp_path) == []
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert gpu.lease(1, folder=tmp_path) == []


def test_more_devices_than_there_are_is_a_users_mistake(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(UserError, match="3 GPUs are needed, 2 can be seen"):
        gpu.lease(3, folder=tmp_path)

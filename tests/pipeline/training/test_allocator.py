"""Freed memory that is kept for the next step."""

import subprocess
import sys

import pytest

# pages that the system hands out in two training steps of a small model, after some others
PROGRAM = """
import resource, sys
from pathlib import Path
import torch
import hsam
from pipeline.training.allocator import keep_freed_memory

torch.manual_seed(0)
kept = sys.argv[1] == "keep" and keep_freed_memory()
model = hsam.build_hsam("vit_tiny", image_size=192, num_classes=3)
images, labels = torch.rand(8, 1, 192, 192), torch.randint(0, 4, (8, 192, 192))

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        hsam.two_stage_loss(model(images, labels), labels).total.backward()
        model.zero_grad()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(3)
# getrusage would give the parent's peak where that is larger
print(faults(2), Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0], kept)
"""


def steps(mode: str) -> tuple[int, int, bool]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True
    )
    faults, peak, kept = run.stdout.split()
    return int(faults), int(peak), kept == "True"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_step_takes_the_memory_of_the_one_before():
    handed_out, peak, _ = steps("plain")
    with_kept, kept_peak, can = steps("keep")
    if not can:
        pytest.skip("the C library can't be told")
    assert with_kept < max(handed_out, 10_000) / 4
    assert kept_peak < 1.2 * peak

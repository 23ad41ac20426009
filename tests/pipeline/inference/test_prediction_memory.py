import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import hsam
from pipeline.imaging.geometry import CANONICAL, preparation

SIDE = 320
BYTES_A_VOXEL = 8  # of an int16 scan under a window; stated in docs/prediction.md
# prints the peak of the resident memory, KiB
PREDICT = """
import sys
from pathlib import Path
import torch
from pipeline.commands import predict as predict_command
from pipeline.commands.predict import Wanted

torch.set_num_threads(1)
scan, run, out, batch = *map(Path, sys.argv[1:4]), int(sys.argv[4])
assert predict_command.run([scan], run, out, Wanted(batch=batch), None, "cpu")
# getrusage would give the parent's peak where that is larger
status = Path("/proc/self/status").read_text()
print(status.split("VmHWM:")[1].split()[0])
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model = hsam.build("hsam", "vit_tiny", image_size=32, num_classes=2)
    hsam.save(
        model,
        folder,
        class_names=["liver", "spleen"],
        intensity={"kind": "window", "low": -125.0, "high": 275.0},
        preparation=preparation(CANONICAL, None),
    )
    return folder


def peak(run: Path, folder: Path, slices: int, batch: int = 4) -> int:
    """Peak memory of predicting a scan of so many slices, bytes."""
    scan = folder / f"{slices}.nii"
    rows = np.linspace(-500, 500, SIDE, dtype=np.int16)
    array = np.broadcast_to(rows[:, None, None], (SIDE, SIDE, slices))
    nib.save(nib.Nifti1Image(array, np.diag([0.8, 0.8, 3.0, 1.0])), scan)
    arguments = [str(scan), str(run), str(folder / f"{slices}-{batch}"), str(batch)]
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, *arguments], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return 1024 * int(done.stdout.split()[-1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory as Linux counts it")
def test_memory_is_the_volume_and_one_batch(run, tmp_path):
    few, many = 40, 160
    small, large = peak(run, tmp_path, few), peak(run, tmp_path, many)
    growth = (large - small) / ((many - few) * SIDE**2)
    # int16 voxels are 2, the label maps of mean, coarse and fine 3
    assert 5 <= growth < BYTES_A_VOXEL
    assert peak(run, tmp_path, many, batch=many) > large + (many - 4) * SIDE**2

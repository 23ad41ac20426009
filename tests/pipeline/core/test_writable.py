import resource
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import save_file

from pipeline.core import files, writable
from pipeline.core.errors import UserError


@pytest.fixture
def small_files():
    """No file can grow beyond 100 KB, as on a disk that fills up while it is written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


LARGE = np.random.default_rng(1).integers(0, 255, (64, 64, 64), np.uint8)
WRITERS = {
    "text": lambda path: path.write_bytes(LARGE.tobytes()),
    "copy": lambda path: shutil.copyfile(torch.overrides.__file__, path),
    "numpy": lambda path: np.save(path, LARGE),
    "parquet": lambda path: pq.write_table(pa.table({"a": LARGE.ravel()}), path),
    "torch": lambda path: torch.save(torch.from_numpy(LARGE), path),
    "safetensors": lambda path: save_file({"a": torch.from_numpy(LARGE)}, path),
    "nibabel": lambda path: nib.save(nib.Nifti1Image(LARGE, np.eye(4)), path),
    "simpleitk": lambda path: sitk.WriteImage(sitk.GetImageFromArray(LARGE), path),
}
SUFFIXES = ("txt", "py", "npy", "parquet", "pt", "safetensors", "nii", "mha")


@pytest.mark.parametrize(
    ("writer", "suffix"),
    list(
        zip(
            WRITERS, ["txt", "py", "npy", "parquet", "pt", "safetensors", "nii", "mha"], strict=True
        )
    ),
)
def test_a_disk_that_fills_up_is_said_whatever_library_writes(
    tmp_path, small_files, writer, suffix
):
    path = tmp_path / f"a.{suffix}"
    path.write_text("old")
    with pytest.raises(UserError) as caught, files.atomic_path(path) as temporary:
        WRITERS[writer](temporary)
    assert str(caught.value).startswith(f"{path}: can't be written (file too large); make room")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_place_below_a_file_is_said(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file/a.txt: can't be written"):
        files.write_text(tmp_path / "file" / "a.txt", "new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"folder: can't be written \(is a directory\)"):
        files.write_text(tmp_path / "folder", "new")


def test_another_files_trouble_is_not_taken_for_the_outputs(tmp_path):
    with pytest.raises(IsADirectoryError), files.atomic_path(tmp_path / "out" / "a.txt"):
        (tmp_path / "in").mkdir()
        (tmp_path / "in").read_text()


def test_folders_are_checked_before_they_are_made(tmp_path, small_files):
    (tmp_path / "file").write_text("x")
    writable.check_folder(tmp_path / "new" / "deep")
    writable.check_file(tmp_path / "file")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="expected a folder to write to, .*file is a file"):
            writable.check_folder(path)
    with pytest.raises(UserError, match="it is a folder"):
        writable.check_file(tmp_path)
    with pytest.raises(UserError, match="it is a device or pipe"):
        writable.check_file(Path("/dev/null"))
    with pytest.raises(UserError, match="/proc/x/y: can't be written"):
        writable.check_folder(Path("/proc/x/y"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    with pytest.raises(UserError, match=r"new: can't be written \(file too large\)"):
        writable.check_folder(tmp_path / "new")
    assert [item.name for item in tmp_path.iterdir()] == ["file"]

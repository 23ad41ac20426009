"""Folders that the system refuses to list: a sentence, never scans that are missing without one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.imaging import scans
from pipeline.scoring.pairs import find_pairs
from tests.pipeline.conftest import save_nifti, tiny_label

pytestmark = pytest.mark.skipif(os.name != "posix", reason="rights as POSIX has them")
NOBODY = 65534


@contextmanager
def without_privileges(root: Path) -> Iterator[None]:
    """Inside the block, a superuser is somebody whom rights bind; `root` is reachable."""
    if os.geteuid():
        yield
        return
    for folder in (root, *root.parents):
        if folder.stat().st_uid == 0 and folder != Path("/") and folder.stat().st_mode & 0o077 == 0:
            folder.chmod(0o711)
    os.setegid(NOBODY)
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
        os.setegid(0)


@pytest.mark.parametrize("rights", [0o000, 0o444, 0o111])
def test_a_folder_among_scans_that_cannot_be_read_is_named(tmp_path, rights):
    tmp_path.chmod(0o755)
    save_nifti(tmp_path / "scans" / "a.nii.gz", tiny_label())
    locked = tmp_path / "scans" / "locked"
    save_nifti(locked / "b.nii.gz", tiny_label())
    locked.chmod(rights)
    try:
        with without_privileges(tmp_path), pytest.raises(UserError) as error:
            scans.find([tmp_path / "scans"])
    finally:
        locked.chmod(0o755)
    (problem,) = error.value.problems
    assert problem.startswith(f"{locked}: the folder can't be read (permission denied)")


def test_a_folder_of_masks_that_cannot_be_read_is_named(tmp_path):
    tmp_path.chmod(0o755)
    for case in ("a", "b"):
        for side in ("truth", "prediction"):
            save_nifti(tmp_path / side / case / "liver.nii.gz", tiny_label())
    locked = tmp_path / "truth" / "b"
    locked.chmod(0o000)
    try:
        names = ("{case}/{organ}", "{case}/{organ}")
        folders = tmp_path / "truth", tmp_path / "prediction"
        with without_privileges(tmp_path), pytest.raises(UserError, match="can't be read"):
            find_pairs(*folders, names)
    finally:
        locked.chmod(0o755)

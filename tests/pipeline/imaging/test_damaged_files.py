"""Files with bytes changed, lost or added: read, or refused in one sentence, and nothing else."""

import random
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from pipeline.core.errors import UserError
from pipeline.imaging import scans, volumes
from tests.pipeline.dicom_files import write_enhanced, write_series

ARRAY = (np.arange(6 * 7 * 5).reshape(6, 7, 5) % 200 - 100).astype(np.int16)
AFFINE = np.diag([1.0, 2.0, 3.0, 1.0])
# the readers' own, of values against the norm
pytestmark = pytest.mark.filterwarnings("ignore")
HEADER = 600  # bytes of a file that damage goes to; the rest are mostly voxels


def write(path: Path) -> None:
    if path.name == "v2.nii":
        nib.save(nib.Nifti2Image(ARRAY, AFFINE), path)
    elif path.suffix in (".nii", ".gz"):
        nib.save(nib.Nifti1Image(ARRAY, AFFINE), path)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file["image"] = ARRAY
    else:
        sitk.WriteImage(sitk.GetImageFromArray(ARRAY), str(path))


def damaged(content: bytes, chance: random.Random, header: int) -> bytes:
    """The content, cut somewhere or with up to 20 bytes flipped, erased or inserted."""
    kind = chance.choice(["cut", "flip", "erase", "fill", "insert"])
    if kind == "cut":
        return content[: chance.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        place = chance.randrange(min(header, len(changed)))
        if kind == "flip":
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == "insert":
            changed.insert(place, chance.randrange(256))
        else:
            changed[place] = 0 if kind == "erase" else 255
    return bytes(changed)


@pytest.mark.parametrize("name", ["v1.nii", "v2.nii", "v1.nii.gz", "a.nrrd", "a.mha", "a.h5"])
def test_a_damaged_volume_is_read_or_refused(tmp_path, name):
    path, chance = tmp_path / name, random.Random(0)
    write(path)
    content = path.read_bytes()
    header = len(content) if name == "a.h5" else HEADER
    refused = 0
    for _ in range(200):
        path.write_bytes(damaged(content, chance, header))
        try:
            volumes.read(path, "image")
        except UserError as error:
            refused += 1
            assert str(path) in str(error)
    assert refused > 20


def write_dicom(folder: Path, kind: str) -> Path:
    """A DICOM series of one kind; the file of it that is to be damaged."""
    if kind == "frames":
        return write_enhanced(folder / "ct.dcm", ARRAY)
    path = write_series(folder, ARRAY)[2]
    if kind == "packed":
        image = pydicom.dcmread(path)
        image.compress(pydicom.uid.RLELossless)
        image.save_as(path)
    elif kind == "bare":
        path.write_bytes(path.read_bytes()[132:])
        path = path.rename(path.with_suffix(""))
    return path


@pytest.mark.parametrize("kind", ["slices", "frames", "packed", "bare"])
def test_a_damaged_slice_is_read_or_refused(tmp_path, kind):
    path, chance = write_dicom(tmp_path, kind), random.Random(0)
    content = path.read_bytes()
    refused = 0
    for _ in range(60):
        path.write_bytes(damaged(content, chance, len(content)))
        try:
            for source in scans.find([tmp_path]):
                scans.read(source)
        except UserError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("name", ["empty.nii", "empty.nii.gz", "empty.nrrd", "empty.mha"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="can't be read, damaged or truncated"):
        volumes.read(tmp_path / name)

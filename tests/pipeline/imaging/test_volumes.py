import gzip

import h5py
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.core.errors import UserError
from pipeline.imaging import volumes
from pipeline.imaging.geometry import (
    Geometry,
)
from pipeline.imaging.grids import largest_distance
from tests.pipeline.conftest import AFFINE, save_nifti, tiny_image, tiny_label

OBLIQUE = np.array(
    [[0.55, -0.1, 0.4, -30], [0.15, 0.72, -0.3, 12], [-0.1, 0.2, 3.1, -200], [0, 0, 0, 1.0]]
)
FLIPPED = AFFINE @ np.diag([-1.0, -1, -1, 1])
PERMUTED = AFFINE[:, [2, 0, 1, 3]]


@pytest.mark.parametrize("affine", [AFFINE, FLIPPED, PERMUTED])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mhd", ".mha"])
def test_every_format_gives_the_same_voxels_in_the_same_places(tmp_path, affine, ending):
    original = save_nifti(tmp_path / "original.nii.gz", tiny_image(), affine)
    copy = tmp_path / f"copy{ending}"
    sitk.WriteImage(sitk.ReadImage(str(original)), str(copy))
    volume = volumes.read(copy)
    assert np.array_equal(volume.array, tiny_image())
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)


def test_oblique_volume_through_simpleitk(tmp_path):
    turn = np.linalg.qr(OBLIQUE[:3, :3])[0]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * (0.6, 0.8, 3), (-30, 12, -200)
    original = save_nifti(tmp_path / "original.nii", tiny_image(), affine)
    sitk.WriteImage(sitk.ReadImage(str(original)), str(tmp_path / "copy.nrrd"))
    volume = volumes.read(tmp_path / "copy.nrrd")
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    np.testing.assert_allclose(volume.spacing, (0.6, 0.8, 3), atol=1e-5)


def test_nifti_keeps_sheared_affine_type_and_values(tmp_path):
    volume = volumes.read(save_nifti(tmp_path / "a.nii.gz", tiny_image(), OBLIQUE))
    assert volume.array.dtype == np.int16
    assert np.array_equal(volume.array, tiny_image())
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-5)


def test_nifti_slope_and_unit_are_applied(tmp_path):
    image = nib.Nifti1Image(tiny_label(), np.diag([0.001, 0.001, 0.002, 1]))
    image.header.set_slope_inter(2, -1000)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "a.nii.gz")
    stored = nib.load(tmp_path / "a.nii.gz").dataobj
    volume = volumes.read(tmp_path / "a.nii.gz")
    assert np.array_equal(volume.array, np.asarray(stored))
    np.testing.assert_allclose(volume.spacing, (1, 1, 2), rtol=1e-5)


def test_hdf5_has_the_default_geometry(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = tiny_image().astype(np.float32)
    volume = volumes.read(tmp_path / "a.h5", "image")
    assert volume.geometry.orientation == "LPS"
    assert volume.spacing == (0.625, 0.625, 0.625)
    with pytest.raises(UserError, match="expected an HDF5 data set 'label', found image"):
        volumes.read(tmp_path / "a.h5", "label")


def test_label_file_lies_on_the_source_grid(tmp_path):
    grid = Geometry((10, 20, 30), OBLIQUE)
    volumes.write_label_nifti(tmp_path / "a.nii.gz", tiny_label(), grid)
    volume = volumes.read(tmp_path / "a.nii.gz")
    assert volume.array.dtype == np.uint8
    assert np.array_equal(volume.array, tiny_label())
    assert largest_distance(volume.geometry, grid) < 1e-3
    # no time in gzip's header: the same labels give the same bytes
    assert (tmp_path / "a.nii.gz").read_bytes()[4:8] == bytes(4)
    with pytest.raises(ValueError, match="expected shape"):
        volumes.write_label_nifti(tmp_path / "c.nii.gz", tiny_label((3, 4, 5)), grid)


def test_fourth_dimension_of_one_is_dropped(tmp_path):
    path = save_nifti(tmp_path / "a.nii.gz", tiny_image((10, 20, 30, 1)))
    assert volumes.read(path).array.shape == (10, 20, 30)


def rgb_nifti(path):
    save_nifti(path, np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")]))


def rgb_nrrd(path):
    array = np.zeros((5, 4, 3, 3), np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(path))


def truncated(path):
    save_nifti(path, tiny_image())
    path.write_bytes(path.read_bytes()[:-2000])


def changed_byte(path):
    save_nifti(path, tiny_image())
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF  # of the checksum at the end
    path.write_bytes(data)


def truncated_plain(path):
    save_nifti(path, tiny_image())
    path.write_bytes(path.read_bytes()[:-10])


def no_voxels_file(path):
    sitk.WriteImage(sitk.GetImageFromArray(tiny_label()), str(path))
    path.with_suffix(".raw").unlink()


def flat_axis(path):
    image = nib.Nifti1Image(tiny_label(), None)
    affine = AFFINE.copy()
    affine[:, 1] = 0
    image.header.set_sform(affine, 1)
    image.header["pixdim"][1:4] = 1
    path.write_bytes(gzip.compress(image.to_bytes()))


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.nii.gz", truncated, "can't be read, damaged or truncated"),
        ("a.nii.gz", changed_byte, "can't be read, damaged or truncated"),
        ("a.nii", truncated_plain, "can't be read, damaged or truncated"),
        ("a.nii.gz", lambda p: p.write_text("not a volume"), "can't be read"),
        ("a.nrrd", lambda p: p.write_text("not a volume"), "can't be read"),
        ("a.h5", lambda p: p.write_text("not a volume"), "can't be read"),
        ("a.mhd", no_voxels_file, "can't be read"),
        ("a.png", lambda p: p.write_text(""), "unknown format; expected one of .nii.gz"),
        ("a.nii", lambda p: None, "there is no such file"),
        ("a.nii.gz", rgb_nifti, r"expected one value a voxel, found 3 \(RGB"),
        ("a.nrrd", rgb_nrrd, r"expected one value a voxel, found 3 \(RGB"),
        ("a.nii.gz", lambda p: save_nifti(p, tiny_image((2, 3, 4, 5))), "expected a 3-D volume"),
        ("a.nii.gz", lambda p: save_nifti(p, tiny_image((20, 30))), "found 2 dimensions"),
        ("a.nii.gz", flat_axis, "the geometry is not usable"),
    ],
)
def test_bad_file_is_a_sentence_that_names_it(tmp_path, name, write, message):
    write(tmp_path / name)
    with pytest.raises(UserError, match=message) as caught:
        volumes.read(tmp_path / name, "image")
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_empty_volume(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = np.zeros((3, 0, 4), np.float32)
    with pytest.raises(UserError, match=r"the volume is empty \(3 x 0 x 4 voxels\)"):
        volumes.read(tmp_path / "a.h5", "image")

import itertools

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from pipeline.core.errors import UserError
from pipeline.imaging import label_volumes, volumes
from pipeline.imaging.geometry import Geometry
from pipeline.imaging.grids import largest_distance
from pipeline.imaging.label_volumes import FORMATS, write_labels
from tests.pipeline.conftest import AFFINE, save_nifti, tiny_image, tiny_label
from tests.pipeline.grids import random_grid, write_scan

OBLIQUE = random_grid(np.random.default_rng(5))[1]


def sheared() -> np.ndarray:
    affine = AFFINE.copy()
    affine[1, 2] = 0.8
    return affine


@pytest.mark.parametrize(
    ("source", "written"),
    list(itertools.product((".nii.gz", ".nii", ".mha", ".nrrd", ".mhd"), (None, *FORMATS))),
)
def test_every_format_takes_the_grid_of_every_other(tmp_path, source, written):
    scan = write_scan(tmp_path / f"scan{source}", tiny_image(), OBLIQUE)
    volume = volumes.read(scan)
    target = tmp_path / f"labels{written or label_volumes.format_for(scan)}"
    write_labels(target, tiny_label(), volume.geometry, scan)
    back = volumes.read(target)
    assert back.array.dtype == np.uint8
    assert np.array_equal(back.array, tiny_label())
    assert largest_distance(back.geometry, volume.geometry) < 1e-4
    if written is None:
        assert np.array_equal(back.affine, volume.affine)


def test_both_of_niftis_forms_are_kept_bit_for_bit(tmp_path):
    image = nib.Nifti1Image(tiny_image(), None)
    image.header.set_sform(OBLIQUE, code=2)
    image.header.set_qform(AFFINE, code=3)
    image.header["descrip"] = b"Doe^Jane"
    nib.save(image, tmp_path / "a.nii.gz")
    volume = volumes.read(tmp_path / "a.nii.gz")
    write_labels(tmp_path / "b.nii.gz", tiny_label(), volume.geometry, tmp_path / "a.nii.gz")
    old, new = (nib.load(tmp_path / f"{name}.nii.gz").header for name in "ab")
    for field in ("pixdim", "quatern_b", "qoffset_x", "srow_x", "srow_z", "sform_code"):
        assert np.array_equal(old[field], new[field])
    assert int(new["qform_code"]) == 3
    assert bytes(new["descrip"]).strip(b"\0") == b""


def test_a_grid_from_the_quaternion_alone_is_kept(tmp_path):
    image = nib.Nifti1Image(tiny_image(), None)
    image.header.set_qform(OBLIQUE, code=1)
    nib.save(image, tmp_path / "a.nii")
    volume = volumes.read(tmp_path / "a.nii")
    write_labels(tmp_path / "b.nii", tiny_label(), volume.geometry, tmp_path / "a.nii")
    assert np.array_equal(volumes.read(tmp_path / "b.nii").affine, volume.affine)


def test_nifti_2_and_metres_stay(tmp_path):
    image = nib.Nifti2Image(tiny_image(), np.diag([0.001, 0.001, 0.002, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "a.nii.gz")
    volume = volumes.read(tmp_path / "a.nii.gz")
    write_labels(tmp_path / "b.nii.gz", tiny_label(), volume.geometry, tmp_path / "a.nii.gz")
    assert isinstance(nib.load(tmp_path / "b.nii.gz"), nib.Nifti2Image)
    assert np.array_equal(volumes.read(tmp_path / "b.nii.gz").affine, volume.affine)


def test_an_nrrd_in_another_space_keeps_its_lines(tmp_path):
    path = tmp_path / "a.nrrd"
    head = (
        "NRRD0004\ntype: uchar\ndimension: 3\nspace: right-anterior-superior\nsizes: 2 3 4\n"
        "space directions: (0.7,0.1,0) (-0.1,0.7,0) (0,0,3.3)\nkinds: domain domain domain\n"
        "endian: little\nencoding: raw\nspace origin: (1.1,2.2,3.3)\n\n"
    )
    path.write_bytes(head.encode() + bytes(range(24)))
    volume = volumes.read(path)
    write_labels(tmp_path / "b.nrrd", tiny_label((2, 3, 4)), volume.geometry, path)
    back = volumes.read(tmp_path / "b.nrrd")
    assert np.array_equal(back.affine, volume.affine)
    assert np.array_equal(back.array, tiny_label((2, 3, 4)))


def test_shear_stays_in_nifti_and_is_refused_elsewhere(tmp_path):
    geometry = Geometry((10, 20, 30), sheared())
    write_labels(tmp_path / "a.nii.gz", tiny_label(), geometry)
    np.testing.assert_allclose(volumes.read(tmp_path / "a.nii.gz").affine, sheared(), rtol=1e-6)
    # no reader is led to a form that has no shear
    assert int(nib.load(tmp_path / "a.nii.gz").header["qform_code"]) == 0
    for ending in (".mha", ".nrrd"):
        with pytest.raises(UserError, match="no place for the source's sheared grid"):
            write_labels(tmp_path / f"a{ending}", tiny_label(), geometry)
        assert not (tmp_path / f"a{ending}").exists()


def test_labels_of_another_shape_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected shape"):
        write_labels(tmp_path / "a.nii", tiny_label((2, 3, 4)), Geometry((10, 20, 30), AFFINE))


def test_other_readers_see_the_same_grid(tmp_path):
    scan = save_nifti(tmp_path / "scan.nii.gz", tiny_image())
    volume = volumes.read(scan)
    write_labels(tmp_path / "labels.nrrd", tiny_label(), volume.geometry, scan)
    one, other = (sitk.ReadImage(str(tmp_path / name)) for name in ("scan.nii.gz", "labels.nrrd"))
    np.testing.assert_allclose(one.GetDirection(), other.GetDirection(), atol=1e-6)
    np.testing.assert_allclose(one.GetOrigin(), other.GetOrigin(), atol=1e-5)

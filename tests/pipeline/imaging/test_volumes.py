import gzip
import re

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
from tests.pipeline.conftest import AFFINE, save_nifti, save_nifti_header, tiny_image, tiny_label

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


def write_hdf5(path, **attributes):
    with h5py.File(path, "w") as file:
        file["image"] = tiny_image().astype(">f4")
        for name, value in attributes.items():
            (file if name == "affine" else file["image"]).attrs[name] = value
    return path


def test_hdf5_without_geometry_gets_the_left_atriums_and_a_warning(tmp_path):
    volume = volumes.read(write_hdf5(tmp_path / "a.h5"), "image")
    assert volume.geometry.orientation == "LPS"
    assert volume.spacing == (0.625, 0.625, 0.625)
    assert volume.array.dtype == np.float32 and volume.array.dtype.isnative
    (warning,) = volume.warnings
    assert "0.625 mm along each axis is a guess" in warning
    with pytest.raises(UserError, match="expected an HDF5 data set 'label', found image"):
        volumes.read(tmp_path / "a.h5", "label")


def test_hdf5_says_its_spacing_and_its_affine(tmp_path):
    volume = volumes.read(write_hdf5(tmp_path / "a.h5", spacing=[0.5, 0.75, 3]), "image")
    assert (volume.spacing, volume.geometry.orientation) == ((0.5, 0.75, 3.0), "LPS")
    (warning,) = volume.warnings
    assert warning.startswith("an HDF5 file without orientation")
    volume = volumes.read(write_hdf5(tmp_path / "a.h5", affine=OBLIQUE.ravel()), "image")
    assert np.array_equal(volume.affine, OBLIQUE)
    assert not any("HDF5" in warning for warning in volume.warnings)


@pytest.mark.parametrize("spacing", [[1, 2], [1, 2, 0], [1, 2, np.nan], "one"])
def test_a_spacing_that_is_none_is_refused(tmp_path, spacing):
    path = write_hdf5(tmp_path / "a.h5", spacing=spacing)
    with pytest.raises(UserError, match="attribute spacing: expected 3 numbers above 0"):
        volumes.read(path, "image")


SIDES = {"pixdim": [1, 0.8544, 0.7, 3, 0, 0, 0, 0]}  # of the sheared sform below
UNPLACED = {"qform_code": 0, "sform_code": 0}


@pytest.mark.parametrize(
    ("fields", "warnings"),
    [
        ({}, []),
        ({"xyzt_units": 2}, []),
        ({"sform_code": 0, "qform_code": 1}, []),
        (UNPLACED, [r"orientation and place are a guess \(LAS\)"]),
        ({**UNPLACED, "pixdim": [1, 0, 1, 1, 0, 0, 0, 0]}, ["hold 0; 1 mm", "are a guess"]),
        ({**UNPLACED, "pixdim": [1, -2, 1, 1, 0, 0, 0, 0]}, ["their sign was", "are a guess"]),
        ({"xyzt_units": 1}, ["unit of length is meter", "unlike a patient's scan"]),
        ({"xyzt_units": 3}, ["unit of length is micron", "unlike a patient's scan"]),
        ({"xyzt_units": 5}, ["has code 5, none of NIfTI's"]),
        ({"srow_y": [0.3, 0.7, 0, -110], **SIDES}, ["the grid is sheared"]),
        # nibabel's header has a qform of code 0
        ({"pixdim": [1, 1, 1, 1, 0, 0, 0, 0]}, [r"1 x 1 x 1 \(pixdim\) and of 0.8 x 0.7 x 3 "]),
        ({"pixdim": [1, 0.80001, 0.7, 3, 0, 0, 0, 0]}, []),
    ],
)
def test_what_a_nifti_header_leaves_open_is_a_warning(tmp_path, fields, warnings):
    found = volumes.read(save_nifti_header(tmp_path / "a.nii", tiny_image(), **fields)).warnings
    assert len(found) == len(warnings)
    for sentence, expected in zip(found, warnings, strict=True):
        assert re.search(expected, sentence)


def turned(degrees: float = 0, shift: float = 0, side: float = 0) -> np.ndarray:
    """AFFINE turned about the patient's long axis, moved (mm), with longer voxels along z (mm)."""
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ AFFINE
    affine[2, 2] += side
    affine[:3, 3] += shift
    return affine


@pytest.mark.parametrize(
    ("qform", "expected"),
    [
        (turned(0.0001, shift=0.001), None),  # rounding
        (turned(10), "axes that point elsewhere"),
        (turned(shift=20), "its origin 34.64 mm away"),
        (turned(side=0.5), "spacing 0.8 x 0.7 x 3.5 mm instead of 0.8 x 0.7 x 3 mm"),
        (AFFINE @ np.diag([-1, 1, 1, 1]), "orientation RAS instead of LAS"),
    ],
)
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_forms_of_a_nifti_file_that_disagree_are_a_warning(tmp_path, qform, expected, kind):
    image = kind(tiny_image(), AFFINE)
    image.header.set_qform(qform, code=1)
    image.header.set_sform(AFFINE, code=1)
    path = tmp_path / "a.nii.gz"
    nib.save(image, path)
    volume = volumes.read(path)
    assert np.allclose(volume.affine, AFFINE, atol=1e-5)  # the sform counts
    assert len(volume.warnings) == (expected is not None)
    for warning in volume.warnings:
        assert (
            warning.startswith("qform and sform disagree, the qform has ") and expected in warning
        )


def test_a_qform_that_is_none_is_a_warning(tmp_path):
    path = save_nifti_header(tmp_path / "a.nii", tiny_image(), qform_code=1, quatern_b=2)
    assert volumes.read(path).warnings[0].startswith("the qform can't be read (")


def text_volume(path, header):
    path.write_bytes("\n".join(header).encode() + tiny_label().astype(">i2").tobytes("F"))
    return path


NRRD = ["NRRD0004", "type: short", "dimension: 3", "sizes: 10 20 30", "endian: big"]
NRRD += ["encoding: raw"]
PLACED = ["space: right-anterior-superior", "space origin: (0,0,0)"]
PLACED += ["space directions: (1,0,0) (0,1,0) (0,0,2)"]
META = ["ObjectType = Image", "NDims = 3", "DimSize = 10 20 30", "ElementType = MET_SHORT"]
META += ["BinaryDataByteOrderMSB = True"]
META_GRID = ["ElementSpacing = 1 1 2", "TransformMatrix = 1 0 0 0 1 0 0 0 1"]
LOCAL = ["ElementDataFile = LOCAL", ""]


@pytest.mark.parametrize(
    ("name", "header", "spacing", "warnings"),
    [
        ("a.nrrd", [*NRRD, *PLACED, "", ""], (1, 1, 2), []),
        ("a.nrrd", [*NRRD, "", ""], (1, 1, 1), ["without orientation: .* voxel sides of 1 mm"]),
        ("a.nrrd", [*NRRD, "spacings: 1 1 2", "", ""], (1, 1, 2), ["without orientation"]),
        (
            "a.nrrd",
            [*NRRD, *PLACED, 'space units: "cm" "cm" "cm"', "", ""],
            (10, 10, 20),
            ["unit of length is cm; voxel sides were converted"],
        ),
        (
            "a.nrrd",
            [*NRRD, *PLACED, 'space units: "ell" "ell" "ell"', "", ""],
            (1, 1, 2),
            ["ell, which is not known"],
        ),
        ("a.mha", [*META, *META_GRID, *LOCAL], (1, 1, 2), []),
        ("a.mha", [*META, *LOCAL], (1, 1, 1), ["without ElementSpacing", "without TransformM"]),
    ],
)
def test_what_a_text_header_leaves_open_is_a_warning(tmp_path, name, header, spacing, warnings):
    volume = volumes.read(text_volume(tmp_path / name, header))
    assert np.array_equal(volume.array, tiny_label()) and volume.array.dtype.isnative
    assert volume.spacing == pytest.approx(spacing)
    assert len(volume.warnings) == len(warnings)
    for sentence, expected in zip(volume.warnings, warnings, strict=True):
        assert re.search(expected, sentence)


@pytest.mark.parametrize("kind", [">i2", ">f4", "<f2", ">f8", "g", "?"])
def test_values_are_in_a_type_that_every_library_takes(tmp_path, kind):
    array = (tiny_label() % 2).astype(kind)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = array
    volume = volumes.read(tmp_path / "a.h5", "image")
    assert volume.array.dtype.isnative and volume.array.dtype.str[1:] in ("i2", "f4", "f8", "u1")
    assert np.array_equal(volume.array, array)


@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_is_known_by_its_bytes(tmp_path, name, layers):
    content = save_nifti_header(tmp_path / "plain.nii", tiny_image()).read_bytes()
    for _ in range(layers):
        content = gzip.compress(content)
    (tmp_path / name).write_bytes(content)
    volume = volumes.read(tmp_path / name)
    assert np.array_equal(volume.array, tiny_image())
    assert volumes.nifti_header(tmp_path / name)["sform_code"] == 2


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


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"


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
        ("a.nii.gz", lambda p: p.write_text(LFS), "a Git LFS pointer; fetch the file"),
        ("a.nrrd", lambda p: p.write_text("<!DOCTYPE html>"), "it is a web page"),
        ("a.nii.gz", lambda p: write_hdf5(p), "it is HDF5; rename it to .h5"),
        ("a.h5", lambda p: save_nifti(p.with_name("b.nii.gz"), tiny_image()).rename(p), "gzip"),
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


@pytest.mark.parametrize("name", ["empty.nii", "empty.nii.gz", "empty.nrrd", "empty.mha"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match="can't be read, damaged or truncated"):
        volumes.read(tmp_path / name)

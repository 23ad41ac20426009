import shutil
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from pipeline.core.errors import UserError
from pipeline.imaging.dicom.series import choose, find_series
from pipeline.imaging.dicom.stack import read_series
from pipeline.imaging.geometry import LPS_TO_RAS
from tests.pipeline.conftest import tiny_image
from tests.pipeline.dicom_files import PATIENT, changed, write_enhanced, write_series

HU = tiny_image((6, 10, 12))  # slices, rows, columns


def read(folder):
    return read_series(choose(find_series(folder), None, folder))


def refused(folder) -> str:
    with pytest.raises(UserError) as error:
        read(folder)
    message = str(error.value)
    assert not any(value in message for value in PATIENT.values())
    return message


def test_voxels_in_hu_and_places_as_simpleitk_has_them(tmp_path):
    write_series(tmp_path, HU)
    volume, used, warnings = read(tmp_path)
    assert warnings == []
    assert np.array_equal(volume.array, HU.transpose(2, 1, 0))
    assert volume.geometry.orientation == "LPS"
    np.testing.assert_allclose(volume.spacing, (0.7, 0.8, 3.0))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    assert np.array_equal(sitk.GetArrayFromImage(image), HU)
    place = np.diag([-1, -1, 1]) @ image.TransformIndexToPhysicalPoint((3, 4, 5))
    np.testing.assert_allclose((volume.affine @ [3, 4, 5, 1])[:3], place)
    numbers = [pydicom.dcmread(image.path).InstanceNumber for image in used.images]
    assert numbers == [1, 2, 3, 4, 5, 6]


def test_oblique_slices_stored_from_the_head_down(tmp_path):
    turn = np.linalg.qr(np.array([[1, 0.2, -0.1], [-0.2, 1, 0.3], [0.1, -0.2, 1]]))[0]
    turn *= np.sign(np.diag(turn))
    normal = np.cross(turn[:, 0], turn[:, 1])
    write_series(tmp_path, HU, axes=turn[:, :2].T.ravel(), step=-2.5 * normal)
    volume, _, warnings = read(tmp_path)
    assert warnings == []
    # sorted along the normal, so the last slice that was written is the first
    assert np.array_equal(volume.array, HU[::-1].transpose(2, 1, 0))
    np.testing.assert_allclose(volume.spacing, (0.7, 0.8, 2.5), rtol=1e-6)


def test_each_slice_has_its_own_rescaling(tmp_path):
    paths = write_series(tmp_path, HU)
    changed(paths[2], RescaleSlope=0.5, RescaleIntercept=-512)
    volume, _, _ = read(tmp_path)
    np.testing.assert_allclose(volume.array[..., 2], HU[2].T / 2)
    assert np.array_equal(volume.array[..., 3], HU[3].T)


def test_frames_are_placed_by_their_own_positions_and_rescaled_by_their_own_slopes(tmp_path):
    slopes = [1, 2, 1, 0.5, 1, 4]
    path = write_enhanced(tmp_path / "ct.dcm", HU, order=(4, 0, 5, 2, 1, 3), slopes=slopes)
    volume, used, warnings = read(tmp_path)
    assert warnings == []
    np.testing.assert_allclose(volume.array, HU.transpose(2, 1, 0), atol=4)
    assert [image.frame for image in used.images] == [1, 4, 3, 5, 0, 2]
    # another reader: its axes are slice, row and column, LPS mm
    other = hd.imread(path).get_volume(apply_modality_transform=True)
    by_place = np.linalg.inv(LPS_TO_RAS @ volume.affine) @ other.affine
    for index in ((0, 0, 0), (2, 3, 4), (5, 9, 11)):
        x, y, z = (by_place @ [*index, 1])[:3].round(6).astype(int)
        assert volume.array[x, y, z] == other.array[index]


def test_a_converted_series_is_the_series(tmp_path):
    plain = read(write_series(tmp_path / "plain", HU, step=(0, 0, -2.0))[0].parent)[0]
    single = [pydicom.dcmread(path) for path in sorted((tmp_path / "plain").iterdir())]
    uid = pydicom.uid.generate_uid
    whole = hd.legacy.LegacyConvertedEnhancedCTImage(single, uid(), 9, uid(), 1)
    (tmp_path / "whole").mkdir()
    whole.save_as(tmp_path / "whole" / "ct.dcm")
    volume, _, _ = read(tmp_path / "whole")
    assert np.array_equal(volume.array, plain.array)
    np.testing.assert_allclose(volume.affine, plain.affine, atol=1e-9)


def test_compressed_frames_are_read(tmp_path):
    path = write_enhanced(tmp_path / "ct.dcm", HU)
    packed = pydicom.dcmread(path)
    packed.compress(pydicom.uid.RLELossless)
    packed.save_as(path)
    assert np.array_equal(read(tmp_path)[0].array, HU.transpose(2, 1, 0))


def test_what_is_wrong_with_frames_is_said_by_frame(tmp_path):
    path = write_enhanced(tmp_path / "ct.dcm", HU, order=(0, 1, 4, 5))
    assert "slices are missing: 2 between ct.dcm (frame 2) and ct.dcm (frame 3)" in refused(
        tmp_path
    )
    write_enhanced(path, np.concatenate([HU, HU]), order=(0, 1, 2, 3, 4, 5, 6), step=(0, 0, 0.0))
    assert "ct.dcm (frame 1) and ct.dcm (frame 2) at" in refused(tmp_path)
    write_enhanced(path, HU)
    changed(path, PixelData=pydicom.dcmread(path).PixelData[:-300])
    assert "frame 5: its voxels can't be read, they are damaged or truncated" in refused(tmp_path)


def test_a_marked_localizer_is_left_out_by_name(tmp_path):
    paths = write_series(tmp_path, HU)
    shutil.copy(paths[0], tmp_path / "scout.dcm")
    changed(
        tmp_path / "scout.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], InstanceNumber=9
    )
    volume, _, warnings = read(tmp_path)
    assert volume.array.shape == (12, 10, 6)
    assert len(warnings) == 1 and "scout.dcm (instance 9)" in warnings[0]


def test_an_unmarked_localizer_lies_across_the_others(tmp_path):
    paths = write_series(tmp_path, HU)
    changed(paths[0], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    volume, _, warnings = read(tmp_path)
    assert volume.array.shape == (12, 10, 5)
    assert paths[0].name in warnings[0]


def test_a_mixture_of_orientations_is_refused(tmp_path):
    uid = pydicom.uid.generate_uid()
    write_series(tmp_path, HU, prefix="a", SeriesInstanceUID=uid)
    across = (0.0, 1, 0, 0, 0, -1)
    write_series(tmp_path, HU, prefix="b", SeriesInstanceUID=uid, axes=across, step=(3, 0, 0))
    assert "one size and orientation, found 2 kinds of 6, 6 images" in refused(tmp_path)


def test_missing_slices_are_named(tmp_path):
    write_series(tmp_path, tiny_image((9, 10, 12)), skip=(3, 4))
    message = refused(tmp_path)
    assert "slices are missing: 2 between image014.dcm (instance 3)" in message
    assert "(instance 6)" in message and "3 mm apart" in message


def test_the_same_slice_twice_is_left_out_by_name(tmp_path):
    paths = write_series(tmp_path, HU)
    shutil.copy(paths[1], tmp_path / "twin.dcm")
    volume, _, warnings = read(tmp_path)
    assert volume.array.shape == (12, 10, 6)
    assert "the same slice twice: twin.dcm (instance 2)" in warnings[0]


def test_two_different_slices_at_one_place_are_refused(tmp_path):
    uid = pydicom.uid.generate_uid()
    write_series(tmp_path, HU, prefix="a", SeriesInstanceUID=uid)
    write_series(tmp_path, HU // 2, prefix="b", SeriesInstanceUID=uid)
    message = refused(tmp_path)
    assert "a000.dcm (instance 1) and b000.dcm (instance 1) at 30.00 mm" in message


def test_uneven_distances_are_refused(tmp_path):
    paths = write_series(tmp_path, HU)
    changed(paths[3], ImagePositionPatient=[-10, -20, 40.0])
    assert "uneven distances, 2 to 4 mm (image021.dcm (instance 4)" in refused(tmp_path)


def test_gantry_tilt_is_told_and_the_grid_is_sheared(tmp_path):
    write_series(tmp_path, HU, step=(0, 0.8, 3.0))
    volume, _, warnings = read(tmp_path)
    assert "tilted by 14.9 degrees" in warnings[0]
    np.testing.assert_allclose(volume.affine[:3, 2], (0, -0.8, 3))


def test_a_single_slice_takes_its_thickness(tmp_path):
    write_series(tmp_path, HU[:1], SliceThickness=5.0)
    volume, _, warnings = read(tmp_path)
    assert volume.array.shape == (12, 10, 1)
    assert volume.spacing[2] == 5
    assert "single slice" in warnings[0] and "5 mm" in warnings[0]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"SamplesPerPixel": 3}, "one value a pixel, found 3 .RGB"),
        ({"NumberOfFrames": 4}, "frames that say where they lie, found 4 without"),
        ({"ImagePositionPatient": None}, "found no ImagePositionPatient"),
        ({"PixelData": b"12"}, "its voxels can't be read"),
    ],
)
def test_images_that_are_no_slices(tmp_path, tags, message):
    paths = write_series(tmp_path, HU)
    changed(paths[1], **tags)
    assert paths[1].name in refused(tmp_path)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_a_truncated_file_is_refused(tmp_path):
    paths = write_series(tmp_path, HU)
    paths[4].write_bytes(paths[4].read_bytes()[:-100])
    assert "its voxels can't be read, they are damaged or truncated" in refused(tmp_path)


# files of scanners, which pydicom brings along
SCANNERS = Path(pydicom.data.__file__).parent / "test_files"
PACKED = ("RLE", "bigendian", "expb", "implicit", "jp2klossless", "jpeg_ls_lossless", "padded")


@pytest.mark.parametrize("kind", PACKED)
def test_every_encoding_of_one_slice_is_the_same_volume(tmp_path, kind):
    shutil.copy(SCANNERS / "MR_small.dcm", tmp_path / "a.dcm")
    plain = read(tmp_path)[0]
    shutil.copy(SCANNERS / f"MR_small_{kind}.dcm", tmp_path / "a.dcm")
    volume, _, _ = read(tmp_path)
    assert np.array_equal(volume.array, plain.array)
    assert np.array_equal(volume.affine, plain.affine)


def test_a_scanners_series(tmp_path):
    folder = SCANNERS / "dicomdirtests" / "98892001" / "CT5N"
    volume, used, warnings = read(folder)
    assert (volume.array.shape, volume.geometry.orientation) == ((16, 16, 5), "LPS")
    assert warnings == [
        "images are numbered from 6, not from 1: up to 5 slices may be missing after the last of "
        "the stack."
    ]
    np.testing.assert_allclose(volume.spacing, (0.488281, 0.488281, 2.5), rtol=1e-5)
    for index, image in enumerate(used.images):
        source = pydicom.dcmread(image.path)
        hu = pydicom.pixels.apply_modality_lut(source.pixel_array, source)
        assert np.array_equal(volume.array[..., index], hu.T)
        first = volume.affine @ [0, 0, index, 1]
        np.testing.assert_allclose((LPS_TO_RAS @ first)[:3], source.ImagePositionPatient)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("77654033/CT2", "slices are missing: 161 between 17106 .instance 18. and 17136"),
        ("98892001/CT2N", "the series has only localizers"),
        ("77654033/CR1", "found no ImagePositionPatient .* a screenshot or scanned document"),
        ("98892003/MR700", "one size and orientation, found 7 kinds"),
    ],
)
def test_a_scanners_images_that_are_no_volume(place, message):
    with pytest.raises(UserError, match=message):
        read(SCANNERS / "dicomdirtests" / place)

"""Which images of a series are slices of one volume, and what may be missing at the ends."""

import numpy as np
import pydicom
import pytest

from pipeline.core.errors import UserError
from pipeline.imaging.dicom.series import choose, find_series
from pipeline.imaging.dicom.stack import read_series
from tests.pipeline.conftest import tiny_image
from tests.pipeline.dicom_files import changed, write_enhanced, write_series

HU = tiny_image((10, 10, 12))  # slices, rows, columns


def read(folder):
    volume, _, warnings = read_series(choose(find_series(folder), None, folder))
    return volume.array.transpose(2, 1, 0), warnings


def turned(sine: float) -> list[float]:
    """ImageOrientationPatient of an axial slice turned in its plane."""
    cosine = float(np.sqrt(1 - sine**2))
    return [cosine, sine, 0, -sine, cosine, 0]


@pytest.mark.parametrize("about", [0, 0.005, 0.015, 0.7])
@pytest.mark.parametrize("noise", [1e-7, 1e-4, 2e-3])
def test_rounded_orientations_are_one(tmp_path, about, noise):
    paths = write_series(tmp_path, HU)
    for index, path in enumerate(paths):
        changed(path, ImageOrientationPatient=turned(about + noise * (-1) ** index))
    values, warnings = read(tmp_path)
    assert np.array_equal(values, HU) and warnings == []


@pytest.mark.parametrize("side", [0.70315, 0.70005, 0.75])
def test_rounded_pixel_spacings_are_one(tmp_path, side):
    paths = write_series(tmp_path, HU)
    for index, path in enumerate(paths):
        changed(path, PixelSpacing=[side + 1e-7 * (-1) ** index, side])
    values, warnings = read(tmp_path)
    assert np.array_equal(values, HU) and warnings == []


def test_slices_that_are_slightly_turned_are_no_localizers(tmp_path):
    paths = write_series(tmp_path, HU)
    changed(paths[0], ImageOrientationPatient=turned(0.03))
    with pytest.raises(UserError, match="parallel slices, found some that are turned by up to 1.7"):
        read(tmp_path)


def test_what_is_left_out_is_said_with_its_reason(tmp_path):
    paths = write_series(tmp_path, HU)
    changed(paths[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    changed(paths[1], PixelSpacing=[0.9, 0.7])
    values, warnings = read(tmp_path)
    assert np.array_equal(values, HU[2:])
    assert warnings == [
        "left out, marked as localizers: image000.dcm (instance 1).",
        "left out, of another matrix, pixel spacing or orientation than the others: image007.dcm "
        "(instance 2).",
    ]


@pytest.mark.parametrize(("skip", "where"), [((0, 1), "before the first"), ((8, 9), "after")])
def test_a_gap_before_the_first_image_shows(tmp_path, skip, where):
    # numbered from the feet or from the head
    order = 1 if skip[0] == 0 else -1
    write_series(tmp_path, HU, step=(0, 0, 3.0 * order), skip=(0, 1))
    values, (warning,) = read(tmp_path)
    assert len(values) == 8
    assert f"images are numbered from 3, not from 1: up to 2 slices may be missing {where}" in (
        warning
    )


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ImagesInAcquisition": 10}, "found 8 of 10 images of the acquisition"),
        ({"NumberOfSlices": 10, "Modality": "PT"}, "found 8 of 10 slices of the series"),
    ],
)
def test_a_gap_after_the_last_image_shows(tmp_path, tags, message):
    write_series(tmp_path, HU, skip=(8, 9), **tags)
    assert message in read(tmp_path)[1][0]
    # the same slice twice doesn't fill the gap
    (tmp_path / "twin.dcm").write_bytes((tmp_path / "image000.dcm").read_bytes())
    assert any(message in warning for warning in read(tmp_path)[1])


def test_every_other_slice_missing_shows(tmp_path):
    write_series(tmp_path, HU, skip=range(1, 10, 2))
    values, (warning,) = read(tmp_path)
    assert np.array_equal(values, HU[::2])
    assert "of the numbers 1 to 9 of images, 4 aren't there" in warning


def test_whole_acquisitions_have_no_gap(tmp_path):
    tags = {"ImagesInAcquisition": 5, "AcquisitionNumber": 1}
    for path in write_series(tmp_path, HU, **tags)[5:]:
        changed(path, AcquisitionNumber=2)
    assert read(tmp_path)[1] == []


def test_a_gap_before_the_first_frame_shows(tmp_path):
    path = write_enhanced(tmp_path / "ct.dcm", HU[3:])
    file = pydicom.dcmread(path)
    for number, frame in enumerate(file.PerFrameFunctionalGroupsSequence, 4):
        frame.FrameContentSequence[0].InStackPositionNumber = number
    file.InConcatenationNumber, file.InConcatenationTotalNumber = 1, 2
    file.save_as(path)
    numbers, parts = read(tmp_path)[1]
    assert "numbered from 4, not from 1: up to 3 slices may be missing before the first" in numbers
    assert "found 1 of 2 files that the multi-frame image was divided into" in parts


def test_places_of_some_frames_alone_are_refused(tmp_path):
    path = write_enhanced(tmp_path / "ct.dcm", HU)
    changed(path, NumberOfFrames=12)
    with pytest.raises(UserError, match="expected the places of 12 frames, found 10"):
        read(tmp_path)


def siemens(image) -> None:
    block = image.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0A, "US", 36)


def united_imaging(image) -> None:
    block = image.private_block(0x0065, "Image Private Header", create=True)
    block.add_new(0x51, "SQ", [])


def marked(image) -> None:
    image.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]


@pytest.mark.parametrize("mark", [siemens, united_imaging, marked])
def test_mosaics_are_refused_with_advice(tmp_path, mark):
    for path in write_series(tmp_path, HU[:2], Modality="MR"):
        image = pydicom.dcmread(path)
        mark(image)
        image.save_as(path)
    with pytest.raises(UserError, match=r"found mosaics.* convert the series to NIfTI, .*dcm2niix"):
        read(tmp_path)


def test_a_slice_without_scale_among_others_is_refused(tmp_path):
    paths = write_series(tmp_path, HU)
    changed(paths[2], RescaleSlope=None, RescaleIntercept=None)
    with pytest.raises(UserError, match=r"found none in image014.dcm .instance 3.; get the series"):
        read(tmp_path)
    for path in paths[:2] + paths[3:]:
        changed(path, RescaleSlope=None, RescaleIntercept=None)
    assert np.array_equal(read(tmp_path)[0], HU + 1024)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PixelSpacing": [0, 0.7]}, "expected a pixel spacing above 0"),
        ({"ImageOrientationPatient": [0.0] * 6}, "two perpendicular unit vectors"),
        ({"ImageOrientationPatient": [1.0, 0, 0, 1, 0, 0]}, "two perpendicular unit vectors"),
    ],
)
def test_geometry_that_is_none_is_refused(tmp_path, tags, message):
    write_series(tmp_path, HU, **tags)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def emptied(path, tag: str) -> None:
    """Leave a tag without a value, as anonymisers do."""
    dataset = pydicom.dcmread(path)
    setattr(dataset, tag, None)
    dataset.save_as(path)


@pytest.mark.parametrize("tag", ["InstanceNumber", "SamplesPerPixel", "NumberOfFrames"])
@pytest.mark.parametrize("files", [slice(2, 3), slice(None)], ids=["one", "all"])
def test_tags_that_are_there_and_empty_are_as_good_as_absent(tmp_path, tag, files):
    for path in write_series(tmp_path, HU)[files]:
        emptied(path, tag)
    assert np.array_equal(read(tmp_path)[0], HU)


@pytest.mark.parametrize("tag", ["RescaleSlope", "RescaleIntercept"])
def test_a_scale_that_one_image_lacks_is_refused(tmp_path, tag):
    paths = write_series(tmp_path, HU)
    emptied(paths[2], tag)
    with pytest.raises(UserError, match=f"slope and intercept .*none in {paths[2].name}"):
        read(tmp_path)

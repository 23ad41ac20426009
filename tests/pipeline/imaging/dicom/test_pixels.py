"""Values of voxels: slope x stored + intercept, the modality table, polarity of the display."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
)

from pipeline.core.errors import UserError
from pipeline.imaging import volumes
from pipeline.imaging.dicom.series import choose, find_series
from pipeline.imaging.dicom.stack import read_series
from tests.pipeline.conftest import tiny_image
from tests.pipeline.dicom_files import changed, write_enhanced, write_series

HU = tiny_image((4, 10, 12))  # slices, rows, columns
SIGNED = {"PixelRepresentation": 1, "RescaleIntercept": 0}


def read(folder):
    volume, _, warnings = read_series(choose(find_series(folder), None, folder))
    return volume.array.transpose(2, 1, 0), warnings


def stored(paths, values) -> None:
    """Put stored values (slices, rows, columns) into the files, two bytes each."""
    for path, pixels in zip(paths, values, strict=True):
        changed(path, PixelData=pixels.astype("<i2").tobytes())


def encoded(path, syntax) -> None:
    """Write a file anew in an uncompressed transfer syntax."""
    old = pydicom.dcmread(path)
    image = Dataset()
    image.update(old)
    image.file_meta = old.file_meta
    image.file_meta.TransferSyntaxUID = syntax
    if not syntax.is_little_endian:
        for item, keyword in ((image, "PixelData"), (image.ModalityLUTSequence[0], "LUTData")):
            item[keyword].value = np.frombuffer(item[keyword].value, "<u2").astype(">u2").tobytes()
    image.save_as(path, enforce_file_format=True)


def table(values, first=0, bits=16) -> Dataset:
    """An item of ModalityLUTSequence, for `values` from the stored value `first` on."""
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    item.ModalityLUTType = "US"
    item.LUTData = np.asarray(values, "<u2").tobytes()
    item["LUTData"].VR = "OW"
    return item


@pytest.mark.parametrize("modality", ["CT", "PT", "NM"])
@pytest.mark.parametrize("signed", [False, True])
def test_measurements_dont_depend_on_how_they_are_shown(tmp_path, modality, signed):
    tags = {"Modality": modality, "PhotometricInterpretation": "MONOCHROME1"}
    paths = write_series(tmp_path, HU, **tags, **(SIGNED if signed else {}))
    if signed:
        stored(paths, HU)
    values, warnings = read(tmp_path)
    assert np.array_equal(values, HU) and warnings == []


def test_measurements_in_frames_dont_depend_on_how_they_are_shown(tmp_path):
    path = write_enhanced(tmp_path / "ct.dcm", HU, slopes=[1, 2, 0.5, 1])
    plain, _ = read(tmp_path)
    changed(path, PhotometricInterpretation="MONOCHROME1")
    values, warnings = read(tmp_path)
    assert np.array_equal(values, plain) and warnings == []
    assert np.array_equal(values[0], HU[0])


@pytest.mark.parametrize("modality", ["MR", "CR"])
def test_pictures_are_turned_to_high_values_bright_with_a_warning(tmp_path, modality):
    tags = {"Modality": modality, "PhotometricInterpretation": "MONOCHROME1", "RescaleIntercept": 0}
    paths = write_series(tmp_path, HU, **tags, BitsStored=12, HighBit=11)
    values, (warning,) = read(tmp_path)
    assert np.array_equal(values, 4095 - (HU + 1024))
    assert (
        f"all slices are to be shown with low values bright (MONOCHROME1, modality {modality}"
        in (warning)
    )
    for path in paths:
        changed(path, PixelRepresentation=1)
    values, _ = read(tmp_path)
    assert np.array_equal(values, -1 - np.where(HU + 1024 >= 2048, HU + 1024 - 4096, HU + 1024))


def test_frames_of_mr_are_turned_too(tmp_path):
    path = write_enhanced(tmp_path / "mr.dcm", HU)
    changed(path, Modality="MR", PhotometricInterpretation="MONOCHROME1")
    values, (warning,) = read(tmp_path)
    assert np.array_equal(values, 65535 - (HU.astype(int) + 1024) - 1024)
    assert "MONOCHROME1" in warning


def test_each_slice_of_pet_has_its_own_slope(tmp_path):
    paths = write_series(tmp_path, HU, Modality="PT", RescaleIntercept=0)
    slopes = [0.5, 1.37, 2.0, 0.0123]
    for path, slope in zip(paths, slopes, strict=True):
        changed(path, RescaleSlope=slope)
    values, _ = read(tmp_path)
    assert np.array_equal(values, (HU + 1024.0) * np.reshape(slopes, (4, 1, 1)))


def test_mr_is_rescaled_too(tmp_path):
    write_series(tmp_path, HU, Modality="MR", RescaleSlope=2, RescaleIntercept=7)
    assert np.array_equal(read(tmp_path)[0], 2 * (HU + 1024) + 7)


@pytest.mark.parametrize("syntax", [None, ExplicitVRBigEndian, ImplicitVRLittleEndian])
def test_the_modality_table_is_applied(tmp_path, syntax):
    tags = {"RescaleSlope": None, "RescaleIntercept": None}
    lut = table(np.arange(4096) * 2, first=100)
    for path in write_series(tmp_path, HU):
        changed(path, **tags, ModalityLUTSequence=[lut])
        if syntax is not None:
            encoded(path, syntax)
    values, _ = read(tmp_path)
    assert np.array_equal(values, 2 * np.clip(HU.astype(int) + 1024 - 100, 0, 4095))


@pytest.mark.parametrize("place", ["file", "shared", "frame"])
def test_the_modality_table_of_frames_is_applied(tmp_path, place):
    path = write_enhanced(tmp_path / "ct.dcm", HU)
    file = pydicom.dcmread(path)
    frames = file.PerFrameFunctionalGroupsSequence
    for frame in frames:
        del frame.PixelValueTransformationSequence
    item = Dataset()
    item.ModalityLUTSequence = [table(np.arange(4096) * 2)]
    if place == "file":
        file.ModalityLUTSequence = item.ModalityLUTSequence
    elif place == "shared":
        file.SharedFunctionalGroupsSequence[0].ModalityLUTSequence = item.ModalityLUTSequence
    else:
        for frame in frames:
            frame.PixelValueTransformationSequence = [item]
    file.save_as(path)
    assert np.array_equal(read(tmp_path)[0], 2 * (HU.astype(int) + 1024))


def test_a_table_for_negative_stored_values(tmp_path):
    paths = write_series(tmp_path, HU, **SIGNED)
    stored(paths, HU)
    for path in paths:
        changed(
            path,
            RescaleSlope=None,
            RescaleIntercept=None,
            ModalityLUTSequence=[table(np.arange(60000), first=-30000)],
        )
    assert np.array_equal(read(tmp_path)[0], HU.astype(int) + 30000)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"ModalityLUTSequence": [table([1, 2], bits=12)]}, "ModalityLUTSequence can't be applied"),
        ({"ModalityLUTSequence": [table([1, 2])]}, "a slope of 1.* and an intercept of -1024"),
        ({"RescaleSlope": 0}, "expected a rescale slope, found 0"),
        ({"RescaleSlope": "1e400"}, "RescaleSlope: expected 1 numbers"),
        ({"BitsStored": 12, "HighBit": 15}, "bits 0 to 11, found 4 to 15"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "one value a pixel, found palette"),
    ],
)
def test_values_that_cant_be_known_are_refused(tmp_path, tags, message):
    paths = write_series(tmp_path, HU)
    changed(paths[1], **tags)
    with pytest.raises(UserError, match=message):
        read(tmp_path)


def test_voxels_that_are_fractions_are_refused(tmp_path):
    paths = write_series(tmp_path, HU)
    changed(paths[1], PixelData=None, FloatPixelData=HU[1].astype(np.float32).tobytes())
    with pytest.raises(UserError, match=r"found FloatPixelData .*; convert the series to NIfTI"):
        read(tmp_path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
@pytest.mark.parametrize("signed", [False, True])
def test_compressed_values(tmp_path, syntax, signed):
    paths = write_series(
        tmp_path, HU, PhotometricInterpretation="MONOCHROME1", **(SIGNED if signed else {})
    )
    if signed:
        stored(paths, HU)
    for path in paths:
        image = pydicom.dcmread(path)
        image.compress(syntax)
        image.save_as(path)
    assert np.array_equal(read(tmp_path)[0], HU)


@pytest.mark.filterwarnings("ignore")  # nibabel's, of a header that is none
@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd", ".nii", ".nii.gz"])
def test_dicom_under_the_name_of_another_format_is_refused(tmp_path, ending):
    (path,) = write_series(tmp_path, HU[:1], PhotometricInterpretation="MONOCHROME1")
    with pytest.raises(UserError, match="can't be read"):
        volumes.read(path.rename(path.with_suffix(ending)))


@pytest.mark.parametrize("kind", ["OB", "OW"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_bytes_as_values(tmp_path, kind, syntax):
    bytes_ = HU[:, :7, :5].astype(np.uint8)
    for path, pixels in zip(write_series(tmp_path, HU[:, :7, :5]), bytes_, strict=True):
        image = Dataset()
        image.update(pydicom.dcmread(path))
        image.file_meta = pydicom.dcmread(path).file_meta
        image.file_meta.TransferSyntaxUID = syntax
        image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
        content = pixels.tobytes() + b"\0"
        if kind == "OW" and syntax == ExplicitVRBigEndian:
            content = np.frombuffer(content, "<u2").astype(">u2").tobytes()
        image.PixelData = content
        image["PixelData"].VR = kind
        image.save_as(path, enforce_file_format=True)
    assert np.array_equal(read(tmp_path)[0], bytes_.astype(int) - 1024)


@pytest.mark.parametrize("columns", [0, 9, 65535])
def test_a_compressed_image_of_another_size_than_its_header_says_is_refused(tmp_path, columns):
    path = write_series(tmp_path, HU)[1]
    image = pydicom.dcmread(path)
    image.compress(pydicom.uid.JPEGLSLossless)
    there = b"\xff\xf7\x00\x0b\x10" + image.Rows.to_bytes(2)
    size = there + image.Columns.to_bytes(2)
    assert image.PixelData.count(size) == 1
    image.PixelData = image.PixelData.replace(size, there + columns.to_bytes(2))
    image.save_as(path)
    with pytest.raises(UserError, match="its voxels can't be read, they are damaged"):
        read(tmp_path)

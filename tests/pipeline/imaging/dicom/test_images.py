"""Files as DICOM: with and without preamble, and what those without images are."""

import os
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from pipeline.core.errors import UserError
from pipeline.imaging import scans
from pipeline.imaging.dicom.segmentation import write_dicom_seg
from pipeline.imaging.dicom.series import choose, find_series
from pipeline.imaging.dicom.stack import read_series
from tests.pipeline.conftest import tiny_image
from tests.pipeline.dicom_files import changed, write_enhanced, write_series

HU = tiny_image((6, 10, 12))  # slices, rows, columns
OBJECTS = {
    "Segmentation (SEG)": "liver_1frame.dcm",
    "RT Structure Set (RTSTRUCT)": "rtstruct.dcm",
    "RT Dose (RTDOSE)": "rtdose.dcm",
    "RT Plan (RTPLAN)": "rtplan.dcm",
    "Comprehensive SR (SR)": "test-SR.dcm",
}
# files of many programs, which pydicom brings along
FILES = Path(pydicom.data.__file__).parent / "test_files"


def read(folder):
    volume, _, warnings = read_series(choose(find_series(folder), None, folder))
    return volume.array.transpose(2, 1, 0), warnings


def without_preamble(path: Path) -> None:
    path.write_bytes(path.read_bytes()[132:])


def without_head(path: Path, syntax: UID = ExplicitVRLittleEndian) -> None:
    """Leave the data set alone, in an encoding that nothing tells."""
    image = Dataset()
    image.update(pydicom.dcmread(path))
    if not syntax.is_little_endian:
        image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
    image.save_as(path, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian)


def bare(paths: list[Path], syntax: UID | None) -> list[Path]:
    """The files without preamble (and, with an encoding, without file header) and ending."""
    for path in paths:
        if syntax is None:
            without_preamble(path)
        else:
            without_head(path, syntax)
    return [path.rename(path.with_suffix("")) for path in paths]


SYNTAXES = [None, ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]


@pytest.mark.parametrize("number", [3, 6])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_files_without_preamble_are_slices_like_others(tmp_path, number, syntax):
    bare(write_series(tmp_path, HU)[:number], syntax)
    values, warnings = read(tmp_path)
    assert np.array_equal(values, HU) and warnings == []
    assert [source.path for source in scans.find([tmp_path])] == [tmp_path]


def test_compressed_and_multi_frame_files_without_preamble(tmp_path):
    paths = write_series(tmp_path / "a", HU)
    for path in paths:
        image = pydicom.dcmread(path)
        image.compress(RLELossless)
        image.save_as(path)
    bare(paths, None)
    assert np.array_equal(read(tmp_path / "a")[0], HU)
    bare([write_enhanced(tmp_path / "b" / "ct.dcm", HU)], None)
    assert np.array_equal(read(tmp_path / "b")[0], HU)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_segmentation_of_files_without_preamble(tmp_path, syntax):
    bare(write_series(tmp_path, HU), syntax)
    volume, used, _ = read_series(choose(find_series(tmp_path), None, tmp_path))
    labels = (volume.array > 0).astype(np.uint8)
    write_dicom_seg(tmp_path / "out.seg.dcm", labels, used, ["liver"])
    assert pydicom.dcmread(tmp_path / "out.seg.dcm").NumberOfFrames == 6


def test_a_segmentation_of_rounded_orientations(tmp_path):
    for index, path in enumerate(write_series(tmp_path, HU)):
        changed(path, ImageOrientationPatient=[1, 1e-7 * index, 0, -1e-7 * index, 1, 0])
    volume, used, _ = read_series(choose(find_series(tmp_path), None, tmp_path))
    write_dicom_seg(tmp_path / "o.dcm", (volume.array > 0).astype(np.uint8), used, ["liver"])
    assert pydicom.dcmread(tmp_path / "o.dcm").NumberOfFrames == 6


@pytest.mark.parametrize(("kind", "name"), OBJECTS.items())
def test_other_objects_are_passed_over_by_what_they_are(tmp_path, kind, name):
    write_series(tmp_path, HU)
    shutil.copy(FILES / name, tmp_path / "other")
    values, warnings = read(tmp_path)
    assert np.array_equal(values, HU)
    assert warnings == [f"passed over, no images of the patient: other: {kind}."]


@pytest.mark.parametrize(("kind", "name"), OBJECTS.items())
def test_other_objects_alone_are_refused_by_what_they_are(tmp_path, kind, name):
    shutil.copy(FILES / name, tmp_path / name)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(UserError) as error:
            scans.find([path])
        assert f"found {name}: {kind}." in str(error.value) or f"found {kind}." in str(error.value)


def test_other_objects_in_folders_of_their_own_are_named(tmp_path, capsys):
    write_series(tmp_path / "cd" / "ct", HU)
    (tmp_path / "cd" / "rt").mkdir()
    shutil.copy(FILES / "rtplan.dcm", tmp_path / "cd" / "rt")
    assert [source.name for source in scans.find([tmp_path / "cd"])] == ["ct"]
    printed = " ".join(capsys.readouterr().err.split())
    assert "passed over, no images of the patient: rt/rtplan.dcm: RT Plan (RTPLAN)" in printed


def test_files_that_are_no_dicom_are_named(tmp_path):
    write_series(tmp_path, HU)
    (tmp_path / "readme.txt").write_text("no DICOM")
    (tmp_path / "IM0009").write_bytes(b"")
    (tmp_path / ".DS_Store").write_bytes(b"hidden")
    assert read(tmp_path)[1] == [
        "passed over, no images of the patient: IM0009: no DICOM; readme.txt: no DICOM."
    ]


@pytest.mark.parametrize(
    "content", [b"", bytes(128) + b"DICM", b"\x08\x00\x05\x00CS\n\x00ISO_IR 100"]
)
def test_empty_files_with_the_ending_of_dicom_are_refused(tmp_path, content):
    write_series(tmp_path, HU)
    (tmp_path / "image999.dcm").write_bytes(content)
    with pytest.raises(UserError, match="image999.dcm: can't be read as DICOM"):
        read(tmp_path)


def test_an_image_that_is_cut_off_in_its_header_is_refused(tmp_path):
    for path in (write_series(tmp_path / "a", HU)[-1], write_enhanced(tmp_path / "b" / "c", HU)):
        image = pydicom.dcmread(path)
        del image.Rows, image.PixelData
        image.save_as(path)
        with pytest.raises(UserError, match="expected an image, found a .*CT Image .CT. without R"):
            find_series(path.parent)


# links


def test_linked_folders_are_searched_and_loops_end(tmp_path):
    write_series(tmp_path / "store" / "x" / "ct", HU)
    (tmp_path / "scans" / "p2").mkdir(parents=True)
    (tmp_path / "scans" / "p1").symlink_to(tmp_path / "store" / "x")
    (tmp_path / "scans" / "p2" / "up").symlink_to(tmp_path / "scans")
    (tmp_path / "scans" / "p2" / "above").symlink_to(tmp_path)
    (tmp_path / "scans" / "p3").symlink_to(tmp_path / "store" / "x" / "ct")
    write_series(tmp_path / "scans" / "p2" / "mr", HU)
    found = scans.find([tmp_path / "scans"])
    assert [source.name for source in found] == ["p1_ct", "p2_mr"]
    (tmp_path / "link").symlink_to(tmp_path / "store" / "x" / "ct")
    assert [source.name for source in scans.find([tmp_path / "link"])] == ["link"]


def test_linked_files_are_read(tmp_path):
    paths = write_series(tmp_path / "store", HU)
    (tmp_path / "ct").mkdir()
    for index, path in enumerate(paths):
        (tmp_path / "ct" / f"slice{index}").symlink_to(path)
    assert np.array_equal(read(tmp_path / "ct")[0], HU)


def test_links_to_nothing_are_refused_by_name(tmp_path):
    write_series(tmp_path / "ct", HU, skip=(5,))
    (tmp_path / "ct" / "slice5").symlink_to(tmp_path / "annex")
    (tmp_path / "a.nii.gz").symlink_to(tmp_path / "annex")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "slice0").symlink_to("slice0")
    found = scans.find([tmp_path])
    assert {source.name for source in found} == {"a", "b", "ct"}
    for source in found:
        with pytest.raises(UserError, match=r"found a link to .* isn't there; get the data first"):
            scans.read(source)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_pipes_are_not_waited_for(tmp_path):
    write_series(tmp_path / "ct", HU)
    os.mkfifo(tmp_path / "ct" / "pipe")
    os.mkfifo(tmp_path / "scan.nii")
    assert [source.name for source in scans.find([tmp_path])] == ["ct"]
    assert read(tmp_path / "ct")[1] == []


# a series UID for each file


def new_uids(paths) -> None:
    for path in paths:
        changed(path, SeriesInstanceUID=pydicom.uid.generate_uid())


def test_a_series_uid_for_each_file_is_one_series(tmp_path):
    new_uids(write_series(tmp_path, HU))
    values, (warning,) = read(tmp_path)
    assert np.array_equal(values, HU)
    assert "each of 6 files has a series UID of its own; they were read as one series" in warning


def test_two_series_with_a_uid_for_each_file_are_two(tmp_path):
    new_uids(write_series(tmp_path, HU, prefix="a"))
    new_uids(write_series(tmp_path, HU[:4], prefix="b", SeriesDescription="arterial"))
    with pytest.raises(UserError, match=r"found 2 series.* 2: arterial .CT, 4 images."):
        read(tmp_path)
    assert len(choose(find_series(tmp_path), "arterial", tmp_path).images) == 4


def test_what_cant_be_one_series_is_listed_in_short(tmp_path):
    paths = write_series(tmp_path, tiny_image((40, 4, 4)))
    new_uids(paths)
    for path in paths:
        changed(path, InstanceNumber=1)
    with pytest.raises(UserError, match=r"found 40 series.* and 20 more\."):
        read(tmp_path)

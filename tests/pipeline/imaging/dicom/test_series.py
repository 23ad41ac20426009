import shutil
from pathlib import Path

import pydicom
import pytest

from pipeline.core.errors import UserError
from pipeline.imaging.dicom.series import Series, choose, find_series
from tests.pipeline.conftest import tiny_image
from tests.pipeline.dicom_files import AXIAL, PATIENT, changed, write_series

HU = tiny_image((6, 10, 12))  # slices, rows, columns
# files of scanners, which pydicom brings along
MR = Path(pydicom.data.__file__).parent / "test_files" / "dicomdirtests" / "98892003" / "MR1"


def chosen(folder, wanted=None) -> Series:
    return choose(find_series(folder), wanted, folder)


def refused(folder) -> str:
    with pytest.raises(UserError) as error:
        chosen(folder)
    message = str(error.value)
    assert not any(value in message for value in PATIENT.values())
    return message


def test_several_series_are_listed_and_one_is_chosen(tmp_path):
    write_series(tmp_path, HU, prefix="a")
    write_series(tmp_path, HU[:3], prefix="b", SeriesNumber=3, SeriesDescription="arterial")
    message = refused(tmp_path)
    assert "found 2 series; choose by number, description or UID with --series" in message
    assert "2: portal venous (CT, 6 images); 3: arterial (CT, 3 images)" in message
    for wanted in ("3", "arterial"):
        assert len(chosen(tmp_path, wanted).images) == 3
    with pytest.raises(UserError, match="--series 9 fits none of 2"):
        chosen(tmp_path, "9")


def test_series_that_only_their_uids_tell_apart_are_listed_with_them():
    message = refused(MR)
    found = find_series(MR)
    assert len(found) == 3 and message.count("1: FAST LOCALIZER") == 3
    assert all(f"UID {series.uid}" in message for series in found)
    assert chosen(MR, found[1].uid).uid == found[1].uid


def test_other_files_and_objects_are_passed_over(tmp_path):
    paths = write_series(tmp_path, HU)
    shutil.copy(paths[0], tmp_path / "report.dcm")
    changed(tmp_path / "report.dcm", Modality="SR", SeriesInstanceUID="1.2.3")
    (tmp_path / "readme.txt").write_text("no DICOM")
    (series,) = find_series(tmp_path)
    assert tuple(series.images[0].axes.ravel()) == AXIAL


def test_a_folder_without_images(tmp_path):
    with pytest.raises(UserError, match="expected a DICOM series of images, found none"):
        chosen(tmp_path)

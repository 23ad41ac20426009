import pydicom

from pipeline.imaging.dicom.frames import frame_headers
from tests.pipeline.datasets.test_dicom import voxels
from tests.pipeline.dicom_files import write_enhanced


def test_a_frames_header_says_nothing_of_other_frames_and_leaves_the_files_alone(tmp_path):
    path = write_enhanced(tmp_path / "image.dcm", voxels(), slopes=[1, 2, 3, 4, 5])
    file = pydicom.dcmread(path)
    # at top level too, as some writers have it
    file.RescaleSlope, file.ImagePositionPatient = 7, [0, 0, 0]
    headers = list(frame_headers(file))
    assert [header.RescaleSlope for header in headers] == [1, 2, 3, 4, 5]
    assert [header.ImagePositionPatient[2] for header in headers] == [30, 33, 36, 39, 42]
    assert {int(header.NumberOfFrames) for header in headers} == {1}
    assert (int(file.NumberOfFrames), file.RescaleSlope) == (5, 7)

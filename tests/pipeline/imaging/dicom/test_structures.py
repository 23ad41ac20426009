"""RT Structure Sets: the contours of a file enclose the pixels of the labels, whatever the grid."""

import numpy as np
import pydicom
import pytest
from matplotlib.path import Path as Polygon
from scipy import ndimage

from pipeline.core.errors import UserError
from pipeline.imaging import scans
from pipeline.imaging.dicom.structures import contours, write_rtstruct
from pipeline.imaging.geometry import LPS_TO_RAS
from tests.pipeline.dicom_files import PATIENT, write_enhanced, write_series

NAMES = ["liver", "right kidney"]
SHAPE = (5, 24, 20)  # slices, rows, columns
TILTED = {"step": (0.0, 0.8, 3.0)}
OBLIQUE = {
    "axes": (0.8, 0.6, 0, -0.6 * 0.96, 0.8 * 0.96, 0.28),
    "step": tuple(3 * np.cross((0.8, 0.6, 0), (-0.6 * 0.96, 0.8 * 0.96, 0.28))),
}


def labels_like(shape, seed=0):
    """(columns, rows, slices) with two smooth organs that have holes and touch the border."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=shape[::-1]), (2, 2, 0.7))
    found = np.zeros(smooth.shape, np.uint8)
    found[smooth > 0.05] = 1
    found[smooth < -0.05] = 2
    found[3, 4, :2] = 2
    return found


def inside(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(columns, rows): whether a pixel's centre lies in a closed contour (points, 2)."""
    grid = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).reshape(-1, 2)
    return Polygon(np.vstack([points, points[:1]]), closed=True).contains_points(grid).reshape(size)


def rasterised(file: pydicom.Dataset, number: int, geometry) -> np.ndarray:
    """The voxels of a structure, its holes left out."""
    found = np.zeros(geometry.shape, bool)
    to_voxels = np.linalg.inv(LPS_TO_RAS @ geometry.affine)
    (item,) = [roi for roi in file.ROIContourSequence if roi.ReferencedROINumber == number]
    for contour in item.ContourSequence:
        points = np.reshape(np.array(contour.ContourData, float), (-1, 3))
        assert len(points) == contour.NumberOfContourPoints
        voxels = np.column_stack([points, np.ones(len(points))]) @ to_voxels.T
        place = round(voxels[0, 2])
        np.testing.assert_allclose(voxels[:, 2], place, atol=1e-3)
        found[:, :, place] ^= inside(voxels[:, :2], geometry.shape[:2])
    return found


def written(folder, labels, **changes):
    write_series(folder / "ct", np.zeros(SHAPE, np.int16) + np.arange(20), **changes)
    (source,) = scans.find([folder / "ct"])
    scan = scans.read(source, None)
    write_rtstruct(folder / "o.dcm", labels, scan.volume.geometry, scan.series, NAMES)
    return pydicom.dcmread(folder / "o.dcm"), scan


@pytest.mark.parametrize(
    "changes", [{}, {"step": (0, 0, -3.0)}, {"axes": (1, 0, 0, 0, -1, 0)}, TILTED, OBLIQUE]
)
def test_the_contours_enclose_the_labels(tmp_path, changes):
    labels = labels_like(SHAPE)
    file, scan = written(tmp_path, labels, **changes)
    for number in (1, 2):
        found = rasterised(file, number, scan.volume.geometry)
        assert np.array_equal(found, labels == number)


def test_each_contour_names_the_image_that_it_lies_on(tmp_path):
    file, scan = written(tmp_path, labels_like(SHAPE), step=(0, 0, -3.0))
    places = {
        image.header.SOPInstanceUID: image.header.ImagePositionPatient[2]
        for image in scan.series.images
    }
    study = file.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    series = study.RTReferencedSeriesSequence[0]
    assert series.SeriesInstanceUID == scan.series.uid
    assert [i.ReferencedSOPInstanceUID for i in series.ContourImageSequence] == list(places)
    for roi in file.ROIContourSequence:
        for contour in roi.ContourSequence:
            (image,) = contour.ContourImageSequence
            assert float(contour.ContourData[2]) == places[image.ReferencedSOPInstanceUID]


def test_structures_have_names_codes_and_sides(tmp_path):
    file, scan = written(tmp_path, labels_like(SHAPE))
    assert file.Modality == "RTSTRUCT" and file.ApprovalStatus == "UNAPPROVED"
    assert [roi.ROIName for roi in file.StructureSetROISequence] == NAMES
    assert len({tuple(roi.ROIDisplayColor) for roi in file.ROIContourSequence}) == 2
    kidney = file.RTROIObservationsSequence[1].RTROIIdentificationCodeSequence[0]
    assert kidney.CodeMeaning == "Kidney"
    assert kidney.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Right"
    header = pydicom.dcmread(scan.series.images[0].path)
    for keyword in (*PATIENT, "StudyInstanceUID", "FrameOfReferenceUID"):
        assert file[keyword].value == header[keyword].value
    assert file.SeriesInstanceUID != header.SeriesInstanceUID


def test_an_organ_that_is_not_there_is_no_structure(tmp_path):
    labels = labels_like(SHAPE)
    labels[labels == 1] = 0
    file, _ = written(tmp_path, labels)
    assert [roi.ROINumber for roi in file.StructureSetROISequence] == [2]


def test_frames_of_a_file_are_named_by_their_numbers(tmp_path):
    order = (3, 0, 4, 1, 2)
    write_enhanced(
        tmp_path / "ct" / "ct.dcm", np.zeros(SHAPE, np.int16) + np.arange(20), order=order
    )
    (source,) = scans.find([tmp_path / "ct"])
    scan = scans.read(source, None)
    labels = np.zeros(SHAPE[::-1], np.uint8)
    labels[5:9, 5:9, 2] = 1
    write_rtstruct(tmp_path / "o.dcm", labels, scan.volume.geometry, scan.series, NAMES)
    (contour,) = pydicom.dcmread(tmp_path / "o.dcm").ROIContourSequence[0].ContourSequence
    assert contour.ContourImageSequence[0].ReferencedFrameNumber == order.index(2) + 1


def test_a_source_without_a_frame_of_reference_is_refused_without_a_file(tmp_path):
    for path in write_series(tmp_path / "ct", np.zeros(SHAPE, np.int16) + np.arange(20)):
        dataset = pydicom.dcmread(path)
        del dataset.FrameOfReferenceUID
        dataset.save_as(path)
    (source,) = scans.find([tmp_path / "ct"])
    scan = scans.read(source, None)
    with pytest.raises(UserError, match="lack FrameOfReferenceUID"):
        write_rtstruct(
            tmp_path / "o.dcm", labels_like(SHAPE), scan.volume.geometry, scan.series, NAMES
        )
    assert not (tmp_path / "o.dcm").exists()


@pytest.mark.parametrize("seed", range(5))
def test_contours_of_any_mask_give_it_back(seed):
    mask = np.random.default_rng(seed).random((9, 11)) < 0.5
    found = np.zeros_like(mask)
    for points in contours(mask):
        assert not np.array_equal(points[0], points[-1])
        found ^= inside(points, mask.shape)
    assert np.array_equal(found, mask)

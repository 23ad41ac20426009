"""Writing a label map as a DICOM RT Structure Set: closed contours of each organ in each slice.

Contours run midway between the pixels in and outside of an organ, so that the pixels whose centres
lie inside of an odd number of them are the organ's: holes are contours of their own. Like the
Segmentation, the file repeats the identifiers of the patient and the study.

Source of the attributes: DICOM PS3.3, A.19.3 and C.8.8.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
from contourpy import contour_generator
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from hsam.version import __version__
from pipeline.core.errors import UserError
from pipeline.core.files import atomic_path
from pipeline.imaging.colours import organ_colours, rgb
from pipeline.imaging.dicom.images import Image
from pipeline.imaging.dicom.segmentation import MAKER, MODEL_NAME, organ_code
from pipeline.imaging.dicom.series import Series
from pipeline.imaging.geometry import LPS_TO_RAS, Geometry

DESCRIPTION, SERIES_NUMBER = "H-SAM structures", 901
STUDY = UID("1.2.840.10008.3.1.2.3.1")  # Detached Study Management, which refers to a study
# of the patient and the study, repeated from the source; empty where it has none
REPEATED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
DIGITS = 4  # of a coordinate in mm


def write_rtstruct(
    path: Path, labels: NDArray[np.uint8], geometry: Geometry, series: Series, names: Sequence[str]
) -> None:
    """Write a structure for each organ in the label map, atomically.

    Args:
        path: the file.
        labels: (column, row, slice) with a label at least, for which `segmentation.obstacle` gives
            None; 0 is the background.
        geometry: of the labels.
        series: the source, its images in the order of the slices.
        names: organs; `names[k - 1]` is label k.

    Raises:
        UserError: headers of the source that lack what a structure set repeats.
    """
    source = pydicom.dcmread(series.images[0].path, stop_before_pixels=True, force=True)
    if lacking := [
        name for name in ("StudyInstanceUID", "FrameOfReferenceUID") if name not in source
    ]:
        raise UserError(
            f"no RT Structure Set was written: the headers in {series.folder} lack {lacking[0]}."
        )
    structures = _structure_set(labels, geometry, series, names, source)
    with atomic_path(path) as temporary:
        structures.save_as(temporary, enforce_file_format=True)


def contours(mask: NDArray[np.bool_]) -> Iterator[NDArray[np.float64]]:
    """Closed contours of a mask (column, row): (points, 2) of column and row, the last point
    not the first again.
    """
    padded = np.pad(mask, 1).astype(np.float64)
    for line in contour_generator(z=padded).lines(0.5):
        # contourpy's x is the second axis; without padding
        yield np.asarray(line)[:-1, ::-1] - 1


def _structure_set(
    labels: NDArray[np.uint8],
    geometry: Geometry,
    series: Series,
    names: Sequence[str],
    source: Dataset,
) -> FileDataset:
    now = datetime.now()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    found = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    if "SpecificCharacterSet" in source:
        found.SpecificCharacterSet = source.SpecificCharacterSet
    found.SOPClassUID, found.SOPInstanceUID = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID
    for keyword in REPEATED:
        setattr(found, keyword, source.get(keyword, ""))
    found.StudyInstanceUID = source.StudyInstanceUID
    found.Modality, found.SeriesInstanceUID = "RTSTRUCT", generate_uid()
    found.SeriesNumber, found.SeriesDescription, found.OperatorsName = (
        SERIES_NUMBER,
        DESCRIPTION,
        "",
    )
    found.Manufacturer, found.ManufacturerModelName = MAKER, MODEL_NAME
    found.SoftwareVersions = __version__
    found.FrameOfReferenceUID, found.PositionReferenceIndicator = source.FrameOfReferenceUID, ""
    found.InstanceNumber = 1
    found.StructureSetLabel = MAKER
    found.StructureSetDate, found.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    found.ApprovalStatus = "UNAPPROVED"
    found.ReferencedFrameOfReferenceSequence = [_references(series, source)]
    found.StructureSetROISequence = []
    found.ROIContourSequence, found.RTROIObservationsSequence = [], []
    shown = [label for label in range(1, len(names) + 1) if (labels == label).any()]
    for label in shown:
        name, colour = names[label - 1], organ_colours(names)[label - 1]
        found.StructureSetROISequence.append(_roi(label, name, source.FrameOfReferenceUID))
        found.ROIContourSequence.append(
            _roi_contours(label, colour, labels == label, geometry, series)
        )
        found.RTROIObservationsSequence.append(_observation(label, name))
    return found


def _references(series: Series, source: Dataset) -> Dataset:
    """The images that the contours lie on."""
    inner, study, found = Dataset(), Dataset(), Dataset()
    inner.SeriesInstanceUID = series.uid
    inner.ContourImageSequence = [_reference(image) for image in series.images]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY, source.StudyInstanceUID
    study.RTReferencedSeriesSequence = [inner]
    found.FrameOfReferenceUID = source.FrameOfReferenceUID
    found.RTReferencedStudySequence = [study]
    return found


def _reference(image: Image) -> Dataset:
    found = Dataset()
    found.ReferencedSOPClassUID = image.header.SOPClassUID
    found.ReferencedSOPInstanceUID = image.header.SOPInstanceUID
    if image.frame is not None:
        found.ReferencedFrameNumber = image.frame + 1
    return found


def _roi(number: int, name: str, frame_of_reference: str) -> Dataset:
    found = Dataset()
    found.ROINumber, found.ROIName = number, name
    found.ReferencedFrameOfReferenceUID = frame_of_reference
    found.ROIGenerationAlgorithm = "AUTOMATIC"
    return found


def _roi_contours(
    number: int, colour: str, mask: NDArray[np.bool_], geometry: Geometry, series: Series
) -> Dataset:
    """The contours of one organ in all slices, in LPS mm."""
    found = Dataset()
    found.ReferencedROINumber, found.ROIDisplayColor = number, list(rgb(colour))
    found.ContourSequence = []
    for place in np.flatnonzero(mask.any(axis=(0, 1))).tolist():
        for points in contours(mask[:, :, place]):
            item = Dataset()
            item.ContourImageSequence = [_reference(series.images[place])]
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(points)
            item.ContourData = [
                f"{value:.{DIGITS}f}" for value in _lps(points, place, geometry).flat
            ]
            found.ContourSequence.append(item)
    return found


def _lps(points: NDArray[np.float64], place: int, geometry: Geometry) -> NDArray[np.float64]:
    """(points, 2) of column and row in a slice -> (points, 3) in LPS mm."""
    voxels = np.column_stack([points, np.full(len(points), place), np.ones(len(points))])
    lps: NDArray[np.float64] = (voxels @ geometry.affine.T @ LPS_TO_RAS.T)[:, :3]
    return lps


def _observation(number: int, name: str) -> Dataset:
    """What a structure is: an organ, with its SNOMED CT code, and its side as a modifier of it."""
    found = Dataset()
    found.ObservationNumber = found.ReferencedROINumber = number
    found.RTROIInterpretedType, found.ROIInterpreter = "ORGAN", ""
    code, side = organ_code(name)
    item = _coded(code)
    if side is not None:
        item.SegmentedPropertyTypeModifierCodeSequence = [_coded(side)]
    found.RTROIIdentificationCodeSequence = [item]
    return found


def _coded(code: Code) -> Dataset:
    found = Dataset()
    found.CodeValue, found.CodingSchemeDesignator = code.value, code.scheme_designator
    found.CodeMeaning = code.meaning
    return found

"""Small DICOM series, written as a scanner's export would be."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

# what must never be in a message or in any output but DICOM objects
PATIENT = {"PatientName": "Doe^Jane", "PatientID": "SECRET-4711", "PatientBirthDate": "19620401"}
AXIAL = (1.0, 0, 0, 0, 1, 0)


def write_series(
    folder: Path,
    array: np.ndarray,
    *,
    axes: Sequence[float] = AXIAL,
    spacing: tuple[float, float] = (0.8, 0.7),
    step: Sequence[float] = (0, 0, 3.0),
    origin: Sequence[float] = (-10.0, -20.0, 30.0),
    skip: Sequence[int] = (),
    prefix: str = "image",
    **tags: object,
) -> list[Path]:
    """Write one file a slice, names in no order of place.

    Args:
        folder: made if it isn't there.
        array: (slices, rows, columns) int16 HU.
        axes: ImageOrientationPatient.
        spacing: between rows and between columns, mm.
        step: from one slice to the next, LPS mm.
        origin: centre of the first pixel of the first slice, LPS mm.
        skip: slices that aren't written.
        prefix: of the file names.
        tags: DICOM keywords to set, in each file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared = new_uids() | tags
    paths = []
    for index, pixels in enumerate(array):
        if index in skip:
            continue
        path = folder / f"{prefix}{(index * 7) % 100:03}.dcm"
        dataset = image(path, pixels, axes, spacing, shared)
        dataset.InstanceNumber = index + 1
        dataset.ImagePositionPatient = [
            float(o + index * s) for o, s in zip(origin, step, strict=True)
        ]
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def new_uids() -> dict[str, object]:
    """Of one series, study and frame of reference."""
    keywords = "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"
    return {keyword: generate_uid() for keyword in keywords}


def image(
    path: Path, pixels: np.ndarray, axes: Sequence[float], spacing: tuple[float, float], tags: dict
) -> FileDataset:
    """One CT image, its stored values 1024 above HU."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    # the same for the same file of the same series
    series = str(tags.get("SeriesInstanceUID"))
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, path.name])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    values = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": "CT",
        "SeriesDescription": "portal venous",
        "SeriesNumber": 2,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "StudyID": "1",
        "StudyDate": "20240101",
        "StudyTime": "120000",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "PatientSex": "F",
        "Manufacturer": "nobody",
        "SliceThickness": 3.0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "RescaleType": "HU",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "PixelSpacing": [float(side) for side in spacing],
        "ImageOrientationPatient": [float(value) for value in axes],
    }
    for keyword, value in {**values, **PATIENT, **tags}.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = (pixels.astype(np.int32) + 1024).astype("<u2").tobytes()
    return dataset


def write_enhanced(
    path: Path,
    array: np.ndarray,
    *,
    order: Sequence[int] | None = None,
    slopes: Sequence[float] | None = None,
    spacing: tuple[float, float] = (0.8, 0.7),
    step: Sequence[float] = (0, 0, 3.0),
    origin: Sequence[float] = (-10.0, -20.0, 30.0),
    **tags: object,
) -> Path:
    """Write an Enhanced CT image: one file, a frame a slice.

    Args:
        path: the file.
        array: (slices, rows, columns) int16 HU; rounded down to a frame's slope.
        order: the slice that each frame shows; none: as they are.
        slopes: RescaleSlope of each frame.
        spacing, step, origin, tags: as for `write_series`.
    """
    order = range(len(array)) if order is None else order
    slopes = [1.0] * len(order) if slopes is None else slopes
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = image(path, array[0], AXIAL, spacing, new_uids() | tags)
    for keyword in ("ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(dataset, keyword)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    dataset.InstanceNumber, dataset.NumberOfFrames = 1, len(order)
    shared = Dataset()
    shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=list(AXIAL))]
    shared.PixelMeasuresSequence = [_item(PixelSpacing=list(spacing), SliceThickness=3.0)]
    dataset.SharedFunctionalGroupsSequence = [shared]
    frames, stored = [], []
    for number, (index, slope) in enumerate(zip(order, slopes, strict=True), 1):
        place = [float(o + index * s) for o, s in zip(origin, step, strict=True)]
        frame = Dataset()
        frame.PlanePositionSequence = [_item(ImagePositionPatient=place)]
        frame.PixelValueTransformationSequence = [
            _item(RescaleSlope=float(slope), RescaleIntercept=-1024.0, RescaleType="HU")
        ]
        frame.FrameContentSequence = [_item(FrameAcquisitionNumber=number)]
        frames.append(frame)
        stored.append(np.floor((array[index].astype(np.int32) + 1024) / slope))
    dataset.PerFrameFunctionalGroupsSequence = frames
    dataset.PixelData = np.stack(stored).astype("<u2").tobytes()
    dataset.save_as(path, enforce_file_format=True)
    return path


def _item(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def changed(path: Path, **tags: object) -> None:
    """Change tags of a file; None removes one."""
    dataset = pydicom.dcmread(path)
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)

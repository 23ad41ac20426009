"""Writing pictures of a predicted DICOM series as a series of Secondary Capture images.

Any viewer shows them, also one that knows no Segmentations. They are pictures, not for diagnosis,
and say so. Like the Segmentation, they repeat the identifiers of the patient and the study.

Source of the attributes: DICOM PS3.3, A.8.1, C.7.6.1 and C.8.6.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from hsam.version import __version__
from pipeline.core.files import staged_folder
from pipeline.core.writable import naming_unwritable
from pipeline.imaging.dicom.images import Image
from pipeline.imaging.dicom.segmentation import MAKER, MODEL_NAME, naming_headers
from pipeline.imaging.dicom.series import Series

SERIES_NUMBER = 902
DESCRIPTION = "H-SAM preview, not for diagnostic use"
# directions along LPS axes, towards their ends and their beginnings
LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))
SLANT = 0.1  # of a direction cosine, from which its letter is named
SHARED_TAGS = ("FrameOfReferenceUID", "PositionReferenceIndicator")


def write_secondary_capture(
    folder: Path,
    picture: Callable[[int], NDArray[np.uint8]],
    chosen: Sequence[int],
    series: Series,
    derivation: str,
) -> None:
    """Write a picture for each of some slices of a series, as a folder, whole or not at all.

    Args:
        folder: takes 0001.dcm and so on; what stands there is replaced.
        picture: index of a slice to its picture (rows, columns, 3), RGB, rows and columns as
            acquired.
        chosen: indices of the slices, in the order of the series.
        series: the source, its images in the order of the slices.
        derivation: how the pictures were made, in words.

    Raises:
        UserError: headers of the source that lack what a Secondary Capture image repeats.
    """
    uid = hd.UID()
    with staged_folder(folder) as new:
        source, path = Dataset(), None
        for number, index in enumerate(chosen, 1):
            image = series.images[index]
            if image.path != path:
                path = image.path
                source = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            target = new / f"{number:04}.dcm"
            with naming_unwritable(folder, target):
                found = _capture(picture(index), image, source, uid, number, derivation, series)
                found.save_as(target, enforce_file_format=True)


def _capture(
    pixels: NDArray[np.uint8],
    image: Image,
    source: Dataset,
    uid: str,
    number: int,
    derivation: str,
    series: Series,
) -> Dataset:
    """One picture, with the place of the slice that it shows."""
    row, column = image.axes
    with naming_headers("Secondary Capture", series):
        found = hd.sc.SCImage.from_ref_dataset(
            ref_dataset=source,
            pixel_array=pixels,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            # highdicom takes the nearest axes alone; the whole direction follows below
            patient_orientation=(directions(row)[0], directions(column)[0]),
            series_instance_uid=uid,
            series_number=SERIES_NUMBER,
            sop_instance_uid=hd.UID(),
            instance_number=number,
            manufacturer=MAKER,
            manufacturer_model_name=MODEL_NAME,
            software_versions=__version__,
            series_description=DESCRIPTION,
            pixel_spacing=(image.spacing[0], image.spacing[1]),
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
    found.PatientOrientation = [directions(row), directions(column)]
    # no attributes of this kind of image, but viewers that know them scroll both series together
    found.ImagePositionPatient = [float(value) for value in image.position]
    found.ImageOrientationPatient = [float(value) for value in image.axes.ravel()]
    for keyword in SHARED_TAGS:
        if keyword in source:
            setattr(found, keyword, source.get(keyword))
    found.BurnedInAnnotation = "NO"
    found.DerivationDescription = derivation
    found.ImageComments = "Not for diagnostic use."
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if image.frame is not None:
        reference.ReferencedFrameNumber = image.frame + 1
    found.SourceImageSequence = [reference]
    return found


def directions(cosines: NDArray[np.float64]) -> str:
    """Letters of a direction (3,), LPS, the nearest axis first: "L", or "LA" for a slanted one."""
    order = sorted(range(3), key=lambda axis: -abs(cosines[axis]))
    named = [axis for axis in order if abs(cosines[axis]) >= SLANT]
    return "".join(LETTERS[axis][int(cosines[axis] < 0)] for axis in named)

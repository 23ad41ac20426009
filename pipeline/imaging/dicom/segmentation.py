"""Writing a label map as a DICOM Segmentation, with a named and coded segment for each organ.

As the standard requires, the file repeats the identifiers of the patient and study that its source
belongs to; no other output of the pipeline does.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import Code, codes

from hsam.version import __version__
from pipeline.core.errors import UserError
from pipeline.core.files import atomic_path
from pipeline.imaging.colours import organ_colours, rgb
from pipeline.imaging.dicom.series import Series

MAKER, MODEL_NAME, DESCRIPTION = "H-SAM", "hsam predict", "H-SAM segmentation"
SERIES_NUMBER = 900
SHARED_TAGS = ("ImageOrientationPatient", "PixelSpacing")
# organ name in lower case, words separated by a space, to its SNOMED CT code
ORGANS = {
    "spleen": codes.SCT.Spleen,
    "kidney": codes.SCT.Kidney,
    "kidneys": codes.SCT.Kidney,
    "gallbladder": codes.SCT.Gallbladder,
    "liver": codes.SCT.Liver,
    "stomach": codes.SCT.Stomach,
    "aorta": codes.SCT.Aorta,
    "pancreas": codes.SCT.Pancreas,
    "left atrium": codes.SCT.LeftAtrium,
    "prostate": codes.SCT.Prostate,
}
SIDES = {"right": codes.SCT.Right, "left": codes.SCT.Left}


def obstacle(labels: NDArray[np.uint8], series: Series, what: str) -> str | None:
    """One sentence on why these labels can't be written so for a series; None if they can.

    Args:
        labels: to be written.
        series: that they are of.
        what: a DICOM object, such as "DICOM Segmentation".
    """
    if not labels.any():
        return f"no organ was found, and a {what} without one can't be written."
    if len({image.header.get("SeriesInstanceUID") for image in series.images}) > 1:
        return (
            f"no {what} was written: it refers to one series, and the files have several series "
            "UIDs."
        )
    paths = {image.path for image in series.images}
    if series.images[0].frame is not None and len(paths) > 1:
        return (
            f"no {what} was written: it refers to one multi-frame file, and the series has "
            f"{len(paths)}."
        )
    return None


def write_dicom_seg(
    path: Path, labels: NDArray[np.uint8], series: Series, names: Sequence[str]
) -> None:
    """Write a Segmentation with a segment for each organ in the label map, atomically.

    Args:
        path: the file.
        labels: (column, row, slice), for which `obstacle` gives None; 0 is the background.
        series: the source, its images in the order of the slices.
        names: organs; `names[k - 1]` is label k.

    Raises:
        UserError: headers of the source that lack what a Segmentation repeats.
    """
    with naming_headers("DICOM Segmentation", series):
        segmentation = _segmentation(labels, series, names)
    with atomic_path(path) as temporary:
        segmentation.save_as(temporary)


@contextmanager
def naming_headers(what: str, series: Series) -> Iterator[None]:
    """Inside the block, headers from which highdicom can't make an object are a UserError.

    Args:
        what: the object, such as "DICOM Segmentation".
        series: whose headers it repeats.
    """
    try:
        # highdicom warns of names with one part, and prints them
        with warnings.catch_warnings(action="ignore"):
            yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # the error's own words may hold the patient's
        lacking = getattr(error, "name", None)
        reason = f"lack {lacking}" if lacking else "have values that DICOM doesn't allow"
        raise UserError(
            f"no {what} was written: the headers in {series.folder} {reason}."
        ) from None


def _segmentation(
    labels: NDArray[np.uint8], series: Series, names: Sequence[str]
) -> hd.seg.Segmentation:
    """The Segmentation of a label map, as for `write_dicom_seg`."""
    paths = dict.fromkeys(image.path for image in series.images)
    sources = [pydicom.dcmread(path, stop_before_pixels=True, force=True) for path in paths]
    for source in sources[1:]:
        for (
            keyword
        ) in SHARED_TAGS:  # equal but for rounding, which highdicom takes for another plane
            if keyword in source:
                source[keyword].value = sources[0][keyword].value
    shown = [label for label in range(1, len(names) + 1) if (labels == label).any()]
    # segment numbers of a file have no gaps
    numbers = np.zeros(256, np.uint8)
    numbers[shown] = range(1, len(shown) + 1)
    return hd.seg.Segmentation(
        source_images=sources,
        pixel_array=_in_order(numbers[labels.transpose(2, 1, 0)], series, sources[0]),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _segment(number, names[label - 1], organ_colours(names)[label - 1])
            for number, label in enumerate(shown, 1)
        ],
        series_instance_uid=hd.UID(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=MODEL_NAME,
        software_versions=__version__,
        device_serial_number="none",
        series_description=DESCRIPTION,
    )


def _in_order(slices: NDArray[np.uint8], series: Series, source: Dataset) -> NDArray[np.uint8]:
    """The slices in the order of the source: for a multi-frame file, one for each stored frame."""
    frames = [image.frame for image in series.images if image.frame is not None]
    if len(frames) < len(series.images):
        return slices
    stored = np.zeros((int(source.NumberOfFrames), *slices.shape[1:]), np.uint8)
    stored[frames] = slices
    return stored


def organ_code(name: str) -> tuple[Code, Code | None]:
    """SNOMED CT codes of an organ and of its side, which is None where the name has none.

    An unknown name gets the code of "anatomical structure".
    """
    words = name.lower().replace("_", " ").split()
    plain = " ".join(words)
    if plain in ORGANS:
        return ORGANS[plain], None
    side = next((word for word in words if word in SIDES), None)
    organ = " ".join(word for word in words if word != side)
    if side is not None and organ in ORGANS:
        return ORGANS[organ], SIDES[side]
    return codes.SCT.AnatomicalStructure, None


def _segment(number: int, name: str, colour: str) -> hd.seg.SegmentDescription:
    """Description of one segment: number, name, code, algorithm and colour "#rrggbb"."""
    code, side = organ_code(name)
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=code,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=MAKER, version=__version__, family=codes.DCM.ArtificialIntelligence
        ),
        display_color=hd.color.CIELabColor.from_rgb(*rgb(colour)),
    )
    if side is not None:
        modifier = hd.sr.CodedConcept.from_code(side)
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            modifier
        ]
    return segment

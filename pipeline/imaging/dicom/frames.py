"""Frames of a multi-frame DICOM image (Enhanced CT, MR or PET), each as an image of its own.

Source: DICOM PS3.3, C.7.6.16; what all frames share stands once, the rest frame by frame.
"""

from collections.abc import Iterator

from pydicom.dataset import Dataset

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
FRAME_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")
# group of a frame to what of it a single-frame image has at its top
GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "RescaleType"),
    **dict.fromkeys(FRAME_TYPES, ("FrameType",)),
}


def has_frames(header: Dataset) -> bool:
    """Whether an image says of each of its frames where it lies."""
    return bool(header.get(PER_FRAME))


def frame_headers(header: Dataset) -> Iterator[Dataset]:
    """The header of each frame, in the file's order, as a single-frame image would have it."""
    common = Dataset()
    for element in header:
        if element.keyword not in (SHARED, PER_FRAME):
            common.add(element)
    for group in header.get(SHARED) or ():
        _take(group, common)
    for group in header.get(PER_FRAME):
        own = Dataset()
        own.update(common)
        own.NumberOfFrames = 1
        _take(group, own)
        yield own


def _take(groups: Dataset, header: Dataset) -> None:
    for name, keywords in GROUPS.items():
        for item in groups.get(name) or ():
            for keyword in keywords:
                if keyword in item:
                    target = "ImageType" if keyword == "FrameType" else keyword
                    setattr(header, target, item.get(keyword))

"""The frames of a multi-frame DICOM image (Enhanced CT, MR, PET) as single-frame images.

Source: DICOM PS3.3, C.7.6.16: one functional group for all frames, and one for each frame.
"""

from collections.abc import Iterator
from typing import Any

from pydicom.dataset import Dataset

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
FRAME_TYPES = ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence")
# sequence in a functional group to those of its tags that a single-frame image has at top level
GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": (
        "RescaleSlope",
        "RescaleIntercept",
        "ModalityLUTSequence",
    ),
    "FrameContentSequence": ("InStackPositionNumber",),
    "SegmentIdentificationSequence": ("ReferencedSegmentNumber",),
    **dict.fromkeys(FRAME_TYPES, ("FrameType",)),
}


def has_frames(header: Dataset) -> bool:
    """Whether a file holds a functional group, with the position, for each of its frames."""
    return bool(header.get(PER_FRAME))


def frame_headers(header: Dataset) -> Iterator[Dataset]:
    """The header of each frame, in the file's order, as a single-frame image would have it."""
    common = Dataset()
    for element in header:
        if element.keyword not in (SHARED, PER_FRAME):
            common.add(element)
    for group in header.get(SHARED) or ():
        _copy_tags(group, common)
    for group in header.get(PER_FRAME):
        frame = Dataset()
        frame.update(common)
        _put(frame, "NumberOfFrames", 1)
        _copy_tags(group, frame)
        yield frame


def _copy_tags(group: Dataset, header: Dataset) -> None:
    """Copy the tags named in GROUPS from a functional group to the top level of a header."""
    for name, keywords in GROUPS.items():
        for item in group.get(name) or ():
            for keyword in keywords:
                if keyword in item:
                    target = "ImageType" if keyword == "FrameType" else keyword
                    _put(header, target, item.get(keyword))
    if "ModalityLUTSequence" in group:  # not the standard's place, but it changes values
        _put(header, "ModalityLUTSequence", group.ModalityLUTSequence)


def _put(header: Dataset, keyword: str, value: Any) -> None:
    """Set a tag of this header alone: frames share the elements of the file's."""
    if keyword in header:
        delattr(header, keyword)
    setattr(header, keyword, value)

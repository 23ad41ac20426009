"""Which images of a DICOM series are the slices of one volume, and what may be missing of it."""

from collections.abc import Sequence

import numpy as np

from pipeline.core.errors import UserError
from pipeline.imaging.dicom.images import (
    SIEMENS,
    SIEMENS_TILES,
    UNITED_IMAGING_TILES,
    Image,
)
from pipeline.imaging.dicom.series import Series, some

# images turned less than this against the others (direction cosines) are no localizers
ACROSS = 0.1
# how far two direction vectors may be from perpendicular unit vectors, for rounding
SQUARE = 0.02


def slices(series: Series) -> tuple[list[Image], list[str]]:
    """The images that can be slices of one volume, in the order of the files.

    Returns:
        Images of one matrix, pixel spacing and orientation; warnings that name those left out.

    Raises:
        UserError: images that are no slices, or of which it can't be said which ones belong
            together.
    """
    _check_headers(series)
    kept: list[Image] = []
    marked: list[Image] = []
    for image in series.images:
        kind = _image_type(image)
        (marked if "LOCALIZER" in kind or "SCOUT" in kind else kept).append(image)
    if not kept:
        raise UserError(f"{series.folder}: the series has only localizers, no volume.")
    planes = _planes(kept)
    largest = max(planes, key=len)
    odd = [image for plane in planes if plane is not largest for image in plane]
    _check_turns(series, largest[0], odd)
    # a few images of another orientation are localizers that aren't marked as such
    if len(odd) > max(3, len(largest) // 10) or len(odd) >= len(largest):
        raise UserError(
            f"{series.folder}: expected slices of one size and orientation, found {len(planes)} "
            f"kinds of {', '.join(str(len(group)) for group in planes)} images; keep the "
            "images of one volume."
        )
    reasons = {
        "marked as localizers": marked,
        "of another matrix, pixel spacing or orientation than the others": odd,
    }
    return largest, [
        f"left out, {reason}: {', '.join(image.name for image in images)}."
        for reason, images in reasons.items()
        if images
    ]


def missing_by_headers(series: Series, images: Sequence[Image]) -> list[str]:
    """Warnings where the headers say that there are more slices than were found.

    The places of the slices show no gap at either end of a stack, and none where every other one
    is missing.

    Args:
        series: all images that were found.
        images: the slices, in the order of their places.
    """
    return [*_missing_by_number(series, images), *_missing_of_all(series, images)]


def _check_headers(series: Series) -> None:
    """Refuse images that are no slices of a volume; the error lists all of them."""
    tiled = [image for image in series.images if _is_tiled(image)]
    if tiled:
        raise UserError(
            f"{series.folder}: expected a slice an image, found mosaics, in which all slices lie "
            f"side by side: {some([image.name for image in tiled])}; convert the series to NIfTI, "
            "for example with dcm2niix."
        )
    problems = [text for image in series.images if (text := _problem(image))]
    if problems := problems or _without_scale(series):
        raise UserError(problems)


def _problem(image: Image) -> str:
    """One sentence on why an image is no slice of a volume; empty if it is one."""
    header = image.header
    # tags may be there and empty
    frames, samples = header.get("NumberOfFrames") or 1, header.get("SamplesPerPixel") or 1
    if int(frames) > 1:
        return (
            f"{image.path}: expected frames that say where they lie, found {frames} without "
            "functional groups: a film or screenshots? Convert the series to NIfTI."
        )
    if int(samples) != 1:
        return f"{image.path}: expected one value a pixel, found {samples} (RGB)."
    if header.get("PhotometricInterpretation") == "PALETTE COLOR":
        return f"{image.path}: expected one value a pixel, found palette colours."
    if header.get("RescaleSlope") == 0:
        return f"{image.place}: expected a rescale slope, found 0; get it again."
    needed = ("Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    if lacking := [tag for tag in needed if not header.get(tag)]:
        return (
            f"{image.place}: expected a slice of a volume, found no {' or '.join(lacking)}: "
            "a screenshot or scanned document?"
        )
    if not (image.spacing > 0).all():
        return f"{image.place}: expected a pixel spacing above 0, found {header.PixelSpacing}."
    if np.abs(image.axes @ image.axes.T - np.eye(2)).max() > SQUARE:
        return (
            f"{image.place}: expected two perpendicular unit vectors as ImageOrientationPatient, "
            f"found {header.ImageOrientationPatient}."
        )
    return ""


def _without_scale(series: Series) -> list[str]:
    """A sentence where some images say how their values are to be scaled and others don't."""
    slope, intercept, table = "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"
    without_table = [image for image in series.images if not _is_given(image, table)]
    tabled = len(without_table) < len(series.images)
    lacking = [
        image.name
        for image in without_table
        for tag in (slope, intercept)
        if not _is_given(image, tag) and (tabled or any(_is_given(i, tag) for i in without_table))
    ]
    if not lacking:
        return []
    return [
        f"{series.folder}: expected a rescale slope and intercept in every image, found none in "
        f"{some(list(dict.fromkeys(lacking)))}; get the series again."
    ]


def _is_given(image: Image, tag: str) -> bool:
    """Whether a tag is there and not empty."""
    return image.header.get(tag) not in (None, "")


def _is_tiled(image: Image) -> bool:
    """Whether the slices of a volume lie side by side in one image."""
    header = image.header
    siemens = SIEMENS in header and str(header[SIEMENS].value).startswith("SIEMENS MR HEADER")
    return (
        "MOSAIC" in _image_type(image)
        or (siemens and SIEMENS_TILES in header)
        or UNITED_IMAGING_TILES in header
    )


def _image_type(image: Image) -> list[str]:
    """The words of ImageType, in capitals."""
    words = image.header.get("ImageType") or []
    return [str(word).upper() for word in ([words] if isinstance(words, str) else words)]


def _planes(images: Sequence[Image]) -> list[list[Image]]:
    """Images grouped by matrix, pixel spacing and orientation, each near its group's first."""
    groups: list[list[Image]] = []
    for image in images:
        group = next((group for group in groups if image.same_plane(group[0])), None)
        if group is None:
            groups.append([image])
        else:
            group.append(image)
    return groups


def _check_turns(series: Series, reference: Image, odd: Sequence[Image]) -> None:
    """Refuse images that are neither parallel to the others nor clearly across them."""
    turned = [
        image for image in odd if image.same_pixels(reference) and image.turn(reference) < ACROSS
    ]
    if turned:
        largest = max(image.turn(reference) for image in turned)
        raise UserError(
            f"{series.folder}: expected parallel slices, found some that are turned by up to "
            f"{np.degrees(largest):.1f} degrees: {some([image.name for image in turned])}; "
            "resample the series to parallel slices first."
        )


def _missing_by_number(series: Series, images: Sequence[Image]) -> list[str]:
    """Warnings where the images' numbers don't begin at 1, or leave some out."""
    numbers = {_number(image) for image in series.images}
    known = {number for number in numbers if number is not None}
    if known != numbers:
        return []
    first = min(known)
    warnings = []
    if first > 1:
        ends = {_number(images[0]): "before the first", _number(images[-1]): "after the last"}
        where = ends.get(first, "among or beyond the slices")
        warnings.append(
            f"images are numbered from {first}, not from 1: up to {first - 1} slices may be "
            f"missing {where} of the stack."
        )
    used = [number for image in images if (number := _number(image)) is not None]
    low, high = min(used), max(used)
    if lacking := high - low + 1 - sum(low <= number <= high for number in known):
        warnings.append(
            f"of the numbers {low} to {high} of images, {lacking} aren't there: slices may be "
            "missing, though those that are there lie at even distances."
        )
    return warnings


def _missing_of_all(series: Series, images: Sequence[Image]) -> list[str]:
    """Warnings where there are fewer images, slices or files than the headers say."""
    warnings = []
    acquisitions: dict[str, list[Image]] = {}
    for image in series.images:
        acquisitions.setdefault(str(image.header.get("AcquisitionNumber")), []).append(image)
    for found in acquisitions.values():
        said = _largest(found, "ImagesInAcquisition")
        unique = {str(image.header.get("SOPInstanceUID", image.path)) for image in found}
        if found[0].frame is None and said > len(unique):
            warnings.append(
                f"found {len(unique)} of {said} images of the acquisition: slices may be missing "
                "at the ends of the stack."
            )
    if (said := _largest(images, "NumberOfSlices")) > len(images):
        warnings.append(
            f"found {len(images)} of {said} slices of the series: some may be missing at the ends "
            "of the stack."
        )
    parts = {image.header.get("InConcatenationNumber") for image in series.images}
    if (said := _largest(images, "InConcatenationTotalNumber")) > len(parts):
        warnings.append(
            f"found {len(parts)} of {said} files that the multi-frame image was divided into."
        )
    return warnings


def _number(image: Image) -> int | None:
    """Which image of its series, or frame of its stack, an image is; from 1."""
    keyword = "InstanceNumber" if image.frame is None else "InStackPositionNumber"
    number = image.header.get(keyword)
    return None if number in (None, "") else int(number)  # empty where an anonymiser took it away


def _largest(images: Sequence[Image], keyword: str) -> int:
    """The largest number that a tag has in the images, 0 where none has it."""
    return max(int(image.header.get(keyword) or 0) for image in images)

"""DICOM series: which ones a folder holds, and choosing one of them.

Messages name the series' number and description, never anything that identifies a patient.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.imaging import volumes
from pipeline.imaging.dicom.images import NO_DICOM, Image, leads_nowhere, look

# as many files with a UID of their own are rather one series than as many
FEWEST_JOINED = 3


@dataclass(frozen=True, eq=False)
class Series:
    """The images of one series, in the order of the files or, once stacked, of the slices.

    Attributes:
        folder: where the files lie.
        images: at least one.
        warnings: what is unusual about the files, one sentence each.
    """

    folder: Path
    images: tuple[Image, ...]
    warnings: tuple[str, ...] = ()

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return str(self.images[0].header.get("SeriesInstanceUID", ""))

    @property
    def number(self) -> str:
        """SeriesNumber, empty where there is none."""
        return str(self.images[0].header.get("SeriesNumber", "") or "")

    @property
    def description(self) -> str:
        """SeriesDescription, empty where there is none."""
        return str(self.images[0].header.get("SeriesDescription", "") or "").strip()

    @property
    def modality(self) -> str:
        """Modality, such as "CT" or "MR"; empty where there is none."""
        return str(self.images[0].header.get("Modality", "") or "")

    def text(self) -> str:
        """One line for a list to choose from: number, description, modality, number of images."""
        words = f"{self.number or 'no number'}: {self.description or 'no description'}"
        return f"{words} ({self.modality or 'unknown modality'}, {len(self.images)} images)"


def has_images(folder: Path) -> bool:
    """Whether an image lies directly in a folder; what can't be read or found counts as one."""
    return any(_may_be_image(path) for path in _files(folder))


def other_objects(folder: Path) -> list[tuple[Path, str]]:
    """DICOM files directly in a folder that hold no image of the patient, and what they are."""
    looked = ((path, *look(path)) for path in _files(folder))
    return [(path, kind) for path, images, kind in looked if not images and kind != NO_DICOM]


def find_series(folder: Path) -> list[Series]:
    """The image series directly in a folder, sorted by series number, then description.

    Every file is looked at, whatever its name; their warnings name those that hold no image.

    Raises:
        UserError: a DICOM file that can't be read, or a link to a file that isn't there.
    """
    groups: dict[str, list[Image]] = {}
    others = []
    for path in _files(folder):
        images, kind = look(path)
        for image in images:
            groups.setdefault(str(image.header.get("SeriesInstanceUID", "")), []).append(image)
        if not images:
            others.append(f"{path.name}: {kind}")
    passed = (f"passed over, no images of the patient: {some(others)}.",) if others else ()
    series = _joined([Series(folder, tuple(images), passed) for images in groups.values()])
    return sorted(series, key=lambda item: (item.number.zfill(8), item.description, item.uid))


def choose(series: Sequence[Series], wanted: str | None, folder: Path) -> Series:
    """The one series with this number, description or UID.

    Args:
        series: all series of the folder, from `find_series`.
        wanted: SeriesNumber, SeriesDescription or SeriesInstanceUID; None takes the only series.
        folder: for messages.

    Raises:
        UserError: no series or several fit; the message lists them.
    """
    if not series:
        raise UserError(f"{folder}: expected a DICOM series of images, found none.")
    fits = [s for s in series if wanted in (None, s.number, s.description, s.uid)]
    if len(fits) == 1:
        return fits[0]
    names = [(item.number, item.description) for item in series]
    listed = some(
        [
            item.text() if names.count(name) == 1 else f"{item.text()}, UID {item.uid}"
            for item, name in zip(series, names, strict=True)
        ],
        number=20,
    )
    if wanted is None:
        found = f"found {len(series)} series; choose by number, description or UID with --series"
    else:
        found = f"--series {wanted} fits {len(fits) or 'none'} of {len(series)}"
    raise UserError(f"{folder}: {found}: {listed}.")


def some(items: Sequence[str], number: int = 5) -> str:
    """The first items as a list in words, and how many more there are."""
    more = f" and {len(items) - number} more" if len(items) > number else ""
    return "; ".join(items[:number]) + more


def _files(folder: Path) -> list[Path]:
    """Files and links to none directly in a folder that may be DICOM, sorted by name."""
    return [
        path
        for path in files.entries(folder)
        if (path.is_file() or leads_nowhere(path))
        and not path.name.startswith(".")
        and volumes.suffix(path) is None
    ]


def _may_be_image(path: Path) -> bool:
    try:
        return bool(look(path)[0])
    except UserError:
        return True


def _joined(series: Sequence[Series]) -> list[Series]:
    """The series, those of one file each put together where they can only be one.

    Some programs that remove patients' names give each file a series UID of its own.
    """
    single: dict[tuple[str, ...], list[Series]] = {}
    joined = []
    for item in series:
        if len(item.images) > 1 or item.images[0].frame is not None:
            joined.append(item)
        else:
            name = (item.number, item.description, item.modality)
            single.setdefault(name, []).append(item)
    for parts in single.values():
        images = tuple(part.images[0] for part in parts)
        if len(parts) < FEWEST_JOINED or not _are_slices(images):
            joined += parts
            continue
        warning = (
            f"each of {len(images)} files has a series UID of its own; they were read as one "
            "series, since number, description and orientation are the same."
        )
        joined.append(Series(parts[0].folder, images, (*parts[0].warnings, warning)))
    return joined


def _are_slices(images: Iterable[Image]) -> bool:
    """Whether images are numbered one by one and lie in parallel planes."""
    first, *others = images
    numbers = {image.header.get("InstanceNumber") for image in (first, *others)}
    tags = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
    return (
        None not in numbers
        and len(numbers) == 1 + len(others)
        and all(image.header.get(tag) for image in (first, *others) for tag in tags)
        and all(first.same_plane(other) for other in others)
    )

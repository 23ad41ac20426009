"""A user's own scans: which ones a path holds, and reading one of any format."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import files
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.imaging import volumes
from pipeline.imaging.dicom.images import NO_DICOM, leads_nowhere, look
from pipeline.imaging.dicom.series import (
    Series,
    choose,
    find_series,
    has_images,
    other_objects,
    some,
)
from pipeline.imaging.dicom.stack import read_series
from pipeline.imaging.volumes import HDF5, Volume

# file systems take names of 255 bytes, and files are named after scans with longer endings
LONGEST_NAME = 200
APART = (".mhd", ".nhdr")  # headers whose voxels lie in a file of their own
HDF5_KEY = "image"  # name of the volume inside an HDF5 file


@dataclass(frozen=True)
class Source:
    """A scan that can be read.

    Attributes:
        name: stem of the files written for it; unique among the scans found together.
        path: a volume file, or a folder with DICOM images.
    """

    name: str
    path: Path


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan in memory.

    Attributes:
        volume: voxels in source order.
        warnings: what was unusual and how it was handled, one sentence each.
        modality: as DICOM names it ("CT", "MR"), None where the format doesn't say.
        like: the file whose grid a label map copies; None for DICOM.
        series: the DICOM series that it was read from, None for other formats.
    """

    volume: Volume
    warnings: tuple[str, ...] = ()
    modality: str | None = None
    like: Path | None = None
    series: Series | None = None

    @property
    def files(self) -> list[Path]:
        """The files that it was read from."""
        if self.series is not None:
            return sorted({image.path for image in self.series.images})
        if self.like is None:
            return []
        beside = (
            self.like.parent.glob(f"{self.like.stem}.*raw*") if self.like.suffix in APART else ()
        )
        return [self.like, *sorted(beside)]


def find(paths: Iterable[Path]) -> list[Source]:
    """The scans in files and folders; folders are searched with all folders below them.

    Links to folders are followed. A folder with DICOM images is one scan. Files that are no volumes
    are ignored; folders of DICOM segmentations, plans or reports alone are passed over by name.

    Args:
        paths: volume files and folders.

    Returns:
        The scans, each once, in the order found.

    Raises:
        UserError: a missing path, a folder without a scan, or two scans whose names are the same.
    """
    found, problems = [], []
    for path in map(Path, paths):
        if path.is_dir():
            try:
                inside, others = _in_folder(path)
            except UserError as error:
                problems += error.problems
                continue
            if not inside:
                instead = some(others) if others else "none"
                problems.append(
                    f"{path}: expected volumes ({', '.join(volumes.SUFFIXES)}) or a DICOM series, "
                    f"found {instead}."
                )
            elif others:
                say(f"passed over, no images of the patient: {some(others)}")
            found += inside
        elif not path.is_file() and not leads_nowhere(path):
            problems.append(f"{path}: there is no such file or folder.")
        elif volumes.suffix(path) is None:
            problems.append(
                f"{path}: expected one of {', '.join(volumes.SUFFIXES)}, or the folder of a DICOM "
                f"series, found {_kind(path)}."
            )
        else:
            found.append(Source(plain_name(_stem(path)), path))
    owners: dict[str, Path] = {}  # name to the scan that has it
    for source in found:
        other = owners.setdefault(source.name.lower(), source.path)
        if other != source.path:
            problems.append(
                f"{source.path}: its label map would be named {source.name}, as that of {other}; "
                "rename one or predict them apart."
            )
    if problems:
        raise UserError(problems)
    return list({source.path: source for source in found}.values())


def read(source: Source, series: str | None = None) -> Scan:
    """Read a scan.

    Args:
        source: from `find`.
        series: number, description or UID of the DICOM series, where a folder holds several.

    Raises:
        UserError: the scan can't be read, is no volume, or is an incomplete DICOM series.
    """
    if source.path.is_dir():
        chosen = choose(find_series(source.path), series, source.path)
        volume, used, warnings = read_series(chosen)
        return Scan(volume, tuple(warnings), chosen.modality or None, None, used)
    if leads_nowhere(source.path):
        raise UserError(
            f"{source.path}: expected a volume, found a link to a file that isn't there; get the "
            "data first (dvc pull, git annex get)."
        )
    key = HDF5_KEY if volumes.suffix(source.path) in HDF5 else None
    volume = volumes.read(source.path, key)
    return Scan(volume, volume.warnings, like=source.path)


def _in_folder(folder: Path) -> tuple[list[Source], list[str]]:
    """Scans below a folder, named after their path relative to it.

    Returns:
        The scans; and, of folders without an image, the DICOM files and what they are.
    """
    found, others = [], []
    # a link to a folder that holds this one is a loop
    for place in _folders(folder, set(folder.resolve().parents)):
        inner = place.relative_to(folder).parts
        if has_images(place):
            # a link's own name, not that of what it leads to
            name = "_".join(inner) or Path(os.path.abspath(folder)).name
            found.append(Source(plain_name(name), place))
        else:
            others += [f"{path.relative_to(folder)}: {kind}" for path, kind in other_objects(place)]
        for path in files.entries(place):
            named = volumes.suffix(path) is not None and not path.name.startswith(".")
            if named and (path.is_file() or leads_nowhere(path)):
                found.append(Source(plain_name("_".join([*inner, _stem(path)])), path))
    return found, others


def _folders(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """A folder and all below it by way of links too, each once, but for hidden ones."""
    real = folder.resolve()
    if real in seen:
        return
    seen.add(real)
    yield folder
    for path in files.entries(folder):
        if path.is_dir() and not path.name.startswith("."):
            yield from _folders(path, seen)


def _kind(path: Path) -> str:
    """What a file that isn't a volume holds, in words."""
    try:
        images, kind = look(path)
    except UserError:
        return "a link to nothing or damaged DICOM"
    return (
        "a file of neither"
        if kind == NO_DICOM
        else f"{kind}, one file of a series"
        if images
        else kind
    )


def _stem(path: Path) -> str:
    """The file name without the ending of its format."""
    return path.name[: len(path.name) - len(volumes.suffix(path) or "")]


def plain_name(text: str) -> str:
    """The text as a plain file name: letters, digits, '_', '.', '-', the first no punctuation.

    Of a long text, of folders within folders, a digest takes the place of what is too much.
    """
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", text).lstrip("_.-") or "scan"
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - len(digest) - 1]}-{digest}"

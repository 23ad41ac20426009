"""A user's own scans: which ones a path holds, and reading one of any format."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import UserError
from pipeline.imaging import volumes
from pipeline.imaging.dicom.series import Series, choose, find_series, has_images
from pipeline.imaging.dicom.stack import read_series
from pipeline.imaging.volumes import HDF5, Volume

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


def find(paths: Iterable[Path]) -> list[Source]:
    """The scans in files and folders; folders are searched with all folders below them.

    A folder with DICOM images is one scan. Files that are no volumes are ignored, and so are DICOM
    reports, segmentations and directory files.

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
            inside = list(_in_folder(path))
            if not inside:
                problems.append(
                    f"{path}: expected volumes ({', '.join(volumes.SUFFIXES)}) or a DICOM series, "
                    "found none."
                )
            found += inside
        elif not path.is_file():
            problems.append(f"{path}: there is no such file or folder.")
        elif volumes.suffix(path) is None:
            problems.append(
                f"{path}: expected one of {', '.join(volumes.SUFFIXES)}; for DICOM give the folder "
                "of the series."
            )
        else:
            found.append(Source(_name(_stem(path)), path))
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
    key = HDF5_KEY if volumes.suffix(source.path) in HDF5 else None
    volume = volumes.read(source.path, key)
    return Scan(volume, like=source.path)


def _in_folder(folder: Path) -> Iterable[Source]:
    """Scans below a folder, named after their path relative to it."""
    for place in [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]:
        inner = place.relative_to(folder).parts
        if any(part.startswith(".") for part in inner):
            continue
        if has_images(place):
            yield Source(_name("_".join(inner) or folder.resolve().name), place)
        for path in sorted(place.iterdir()):
            if path.is_file() and volumes.suffix(path) and not path.name.startswith("."):
                yield Source(_name("_".join([*inner, _stem(path)])), path)


def _stem(path: Path) -> str:
    """The file name without the ending of its format."""
    return path.name[: len(path.name) - len(volumes.suffix(path) or "")]


def _name(text: str) -> str:
    """The text as a plain file name: letters, digits, '_', '.', '-', the first no punctuation."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text).lstrip("_.-") or "scan"

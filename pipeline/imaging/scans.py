"""A user's own scans: which ones a path holds, and reading one of any format."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.core import files
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.imaging import volumes
from pipeline.imaging.channels import joined
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
from pipeline.imaging.grids import grid_difference
from pipeline.imaging.volumes import HDF5, NIFTI, Volume

# file systems take names of 255 bytes, and files are named after scans with longer endings
LONGEST_NAME = 200
APART = (".mhd", ".nhdr")  # headers whose voxels lie in a file of their own
# files of a channel in nnU-Net's way
NUMBERED = re.compile(r"(.+)_(000\d)")
HDF5_KEY = "image"  # name of the volume inside an HDF5 file


@dataclass(frozen=True)
class Source:
    """A scan that can be read.

    Attributes:
        name: stem of the files written for it; unique among the scans found together.
        path: a volume file, or a folder with DICOM images; of several channels the first one's.
        parts: a scan for each of several channels that lie apart, `path` the first one's; else
            empty.
        places: of the channels to take in a file that has several; None: it has one.
    """

    name: str
    path: Path
    parts: tuple["Source", ...] = ()
    places: tuple[int, ...] | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths of all channels."""
        return tuple(part.path for part in self.parts) or (self.path,)


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan in memory.

    Attributes:
        volume: voxels in source order.
        warnings: what was unusual and how it was handled, one sentence each.
        modality: as DICOM names it ("CT", "MR"), None where the format doesn't say; a tuple of it
            for several channels.
        like: the file whose grid a label map copies; None for DICOM.
        series: the DICOM series that it was read from, None for other formats.
        further: files of channels beside the first.
    """

    volume: Volume
    warnings: tuple[str, ...] = ()
    modality: str | None | tuple[str | None, ...] = None
    like: Path | None = None
    series: Series | None = None
    further: tuple[Path, ...] = ()

    @property
    def files(self) -> list[Path]:
        """The files that it was read from."""
        if self.series is not None:
            return [*sorted({image.path for image in self.series.images}), *self.further]
        if self.like is None:
            return []
        beside = (
            self.like.parent.glob(f"{self.like.stem}.*raw*") if self.like.suffix in APART else ()
        )
        return [self.like, *sorted(beside), *self.further]


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
    problems += _same_names(found)
    if problems:
        raise UserError(problems)
    return list({source.path: source for source in found}.values())


def of_channels(
    found: Sequence[Source], channels: Mapping[str, int], case: str | None
) -> list[Source]:
    """The scans that a model of some channels takes, each with its channels.

    Without `case`, files NAME_0000, NAME_0001, ... are those of the scan NAME, each number a
    channel; a file of another name holds all channels of a scan.

    Args:
        found: from `find`.
        channels: of the model, name to number in its data set; empty: it has one without a name.
        case: name of the one scan whose channels these are, in the model's order; None: by name.

    Raises:
        UserError: a channel that isn't there, or another number of them than the model has.
    """
    names = " and ".join(channels)
    if case is not None:
        if not channels:
            raise UserError("--case: the model takes scans of one channel; leave it out.")
        if len(found) != len(channels):
            raise UserError(
                f"--case: expected {len(channels)} scans, the channels {names} in this order, "
                f"found {len(found)}."
            )
        return [_of_parts(case, found)]
    if not channels:
        return list(found)
    whole, numbered = [], dict[tuple[Path, str], dict[int, Source]]()
    for source in found:
        if match := NUMBERED.fullmatch(source.name):
            parts = numbered.setdefault((source.path.parent, match[1]), {})
            parts[int(match[2])] = source
        elif source.path.is_dir() and len(channels) > 1:
            raise UserError(
                f"{source.path}: a DICOM series is one channel, the model takes {names}; give the "
                "folders of a scan's series in this order, with --case NAME."
            )
        else:
            whole.append(replace(source, places=_places(source.path, channels)))
    problems = []
    for (folder, name), parts in numbered.items():
        if missing := [f"{name}_{n:04}" for n in channels.values() if n not in parts]:
            problems.append(
                f"{folder}: {name}: expected the channels {names}, the files "
                f"{', '.join(f'{name}_{n:04}' for n in channels.values())}, found no "
                f"{' and no '.join(missing)}; add them, or name the files with --case {name}."
            )
            continue
        whole.append(_of_parts(name, [parts[number] for number in channels.values()]))
    problems += _same_names(whole)
    if problems:
        raise UserError(problems)
    return whole


def _of_parts(name: str, parts: Sequence[Source]) -> Source:
    """A scan whose channels lie apart."""
    return Source(plain_name(name), parts[0].path, tuple(parts) if len(parts) > 1 else ())


def _places(path: Path, channels: Mapping[str, int]) -> tuple[int, ...] | None:
    """Where the channels lie in a file; None for one that has a single channel."""
    if len(channels) == 1:
        several = False
        if volumes.suffix(path) in NIFTI and path.is_file():
            several = volumes.channels_of(path) > 1
        if not several:
            return None
    return tuple(channels.values())


def _same_names(found: Iterable[Source]) -> list[str]:
    """A sentence for each scan whose label map would have the name of another one's."""
    problems = []
    owners: dict[str, Path] = {}  # name to the scan that has it
    for source in found:
        other = owners.setdefault(source.name.lower(), source.path)
        if other != source.path:
            problems.append(
                f"{source.path}: its label map would be named {source.name}, as that of {other}; "
                "rename one or predict them apart."
            )
    return problems


def read(source: Source, series: str | None = None) -> Scan:
    """Read a scan.

    Args:
        source: from `find` or `of_channels`.
        series: number, description or UID of the DICOM series, where a folder holds several.

    Raises:
        UserError: the scan can't be read, is no volume, or is an incomplete DICOM series.
    """
    if source.parts:
        return _together(source, [read(part, series) for part in source.parts])
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
    volume = volumes.read(source.path, key, source.places)
    return Scan(volume, volume.warnings, joined([None] * volume.channels), source.path)


def _together(source: Source, scans: Sequence[Scan]) -> Scan:
    """The channels of a scan as one, on the grid of the first.

    Raises:
        UserError: a channel on another grid.
    """
    first, *others = scans
    for path, other in zip(source.paths[1:], others, strict=True):
        if difference := grid_difference(first.volume.geometry, other.volume.geometry):
            raise UserError(
                f"{path}: expected the grid of {source.path}, the scan's first channel, found "
                f"{difference}; resample it to that grid."
            )
    array = np.stack([scan.volume.array for scan in scans], axis=-1)
    return replace(
        first,
        volume=replace(first.volume, array=array),
        warnings=tuple(dict.fromkeys(warning for scan in scans for warning in scan.warnings)),
        modality=tuple(scan.modality for scan in scans if not isinstance(scan.modality, tuple)),
        further=tuple(path for scan in others for path in scan.files),
    )


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

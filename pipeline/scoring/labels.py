"""Reads the labels of a case, from a label map or from one mask file an organ.

Masks are merged into one label map. Where masks overlap, the voxels get a label that stands for
that set of organs, and it counts for each of them: an organ is always scored on its whole mask.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.imaging import volumes
from pipeline.imaging.geometry import Geometry
from pipeline.imaging.grids import grid_difference
from pipeline.imaging.label_values import distinct, fractional, shown
from pipeline.imaging.volumes import Volume
from pipeline.scoring.measures import Labels
from pipeline.scoring.organs import LARGEST, Organs
from pipeline.scoring.pairs import LabelPair, Source, place


@dataclass(frozen=True, eq=False)
class Labelled:
    """The truth or the prediction of a case.

    Attributes:
        array: labels (z, y, x), unsigned integers.
        geometry: of the file or files.
        organs: organ to its labels in the array.
        others: labels, or names of mask files, that belong to no organ.
        notes: warnings for the user, one sentence each.
    """

    array: NDArray[np.unsignedinteger]
    geometry: Geometry
    organs: dict[str, Labels]
    others: frozenset[int | str] = frozenset()
    notes: tuple[str, ...] = ()


def read_pair(pair: LabelPair, truth: Organs, prediction: Organs) -> tuple[Labelled, Labelled]:
    """Truth and prediction of a case, on one grid.

    Args:
        pair: their files.
        truth, prediction: organ to its labels, or to the names of its mask files.

    Raises:
        UserError: a volume that can't be read, has values that are no labels, or lies on another
            grid; an organ without a mask file. Lists the problems of both.
    """
    problems, sides = [], []
    for source, organs in ((pair.truth, truth), (pair.prediction, prediction)):
        try:
            sides.append(read_labels(source, organs))
        except UserError as error:
            problems += error.problems
    if len(sides) == 2 and (difference := grid_difference(sides[0].geometry, sides[1].geometry)):
        problems.append(
            f"{place(pair.prediction)}: expected the grid of {place(pair.truth)}, found "
            f"{difference}; resample the prediction to the truth's grid, or mend its header."
        )
    if problems:
        raise UserError(f"{pair.case}: {problem}" for problem in problems)
    return sides[0], sides[1]


def read_labels(source: Source, organs: Organs) -> Labelled:
    """The truth or the prediction of a case.

    Args:
        source: its label map or its masks.
        organs: organ to its labels, or to the names of its mask files.

    Raises:
        UserError: as for `read_pair`.
    """
    if not isinstance(source, Path):
        return _from_masks(source, organs)
    array, volume = _read(source)
    numbered = cast(Mapping[str, Labels], organs)  # as a label map's organs are
    known = {0}.union(*numbered.values())
    present = np.flatnonzero(np.bincount(array.ravel()))
    others = frozenset(int(value) for value in present) - known
    notes = tuple(f"{source}: {warning}" for warning in volume.warnings)
    return Labelled(array, volume.geometry, dict(numbered), others, notes)


def words(name: str) -> frozenset[str]:
    """The words of an organ's name in lower case: kidney_right and "Right kidney" are equal."""
    return frozenset(name.lower().replace("_", " ").replace("-", " ").split())


def _from_masks(masks: Mapping[str, Path], organs: Organs) -> Labelled:
    """Merge a case's masks into one label map."""
    chosen = _mask_files(masks, organs)
    # the organs that each label stands for: none, one each, then those that share voxels
    members: list[frozenset[str]] = [frozenset(), *(frozenset({organ}) for organ in organs)]
    array: NDArray[np.uint16] | None = None
    geometry: Geometry | None = None
    overlaps: Counter[tuple[str, ...]] = Counter()
    warnings: list[str] = []
    for organ, paths in chosen.items():
        for path in paths:
            mask, volume = _read_mask(path)
            grid = volume.geometry
            warnings += volume.warnings
            if array is None or geometry is None:
                array, geometry = np.zeros(mask.shape, np.uint16), grid
            elif difference := grid_difference(geometry, grid):
                raise UserError(
                    f"{path}: expected the grid of the other organs, found {difference}."
                )
            for other, count in _add_mask(array, mask, organ, members).items():
                overlaps[tuple(sorted((organ, other)))] += count
    assert array is not None and geometry is not None, "an organ without a mask is refused"
    labels = {
        organ: tuple(label for label, inside in enumerate(members) if organ in inside)
        for organ in organs
    }
    # the masks of a case mostly come from one program, with one flaw
    notes = tuple(f"{place(masks)}: {warning}" for warning in dict.fromkeys(warnings))
    notes += tuple(
        f"{place(masks)}: {first} and {second} share {count} voxels; each is scored with them."
        for (first, second), count in overlaps.items()
    )
    used = {path for paths in chosen.values() for path in paths}
    others = frozenset(name for name, path in masks.items() if path not in used)
    return Labelled(array, geometry, labels, others, notes)


def _add_mask(
    array: NDArray[np.uint16], mask: NDArray[np.bool_], organ: str, members: list[frozenset[str]]
) -> Counter[str]:
    """Mark an organ's mask in a label map, in place.

    Args:
        array: labels (z, y, x).
        mask: of the same shape.
        organ: whose mask it is.
        members: the organs that each label stands for; new sets are added at the end.

    Returns:
        Other organs in the mask, with the number of voxels.
    """
    overlaps: Counter[str] = Counter()
    labels = array[mask]
    counts = np.bincount(labels)
    with_organ = np.arange(len(counts), dtype=np.uint16)
    for label in np.flatnonzero(counts):
        for other in members[label] - {organ}:
            overlaps[other] += int(counts[label])
        with_organ[label] = _label_of(members[label] | {organ}, members)
    array[mask] = with_organ[labels]
    return overlaps


def _label_of(organs: frozenset[str], members: list[frozenset[str]]) -> int:
    """The label of a set of organs; a set without one is added at the end of `members`."""
    if organs not in members:
        members.append(organs)
    return members.index(organs)


def _mask_files(masks: Mapping[str, Path], organs: Organs) -> dict[str, list[Path]]:
    """Organ to its mask files, matched by their words.

    Raises:
        UserError: an organ without a file or with too many; lists every one.
    """
    by_words: dict[frozenset[str], list[str]] = {}
    for name in masks:
        by_words.setdefault(words(name), []).append(name)
    chosen: dict[str, list[Path]] = {}
    problems: list[str] = []
    for organ, names in cast(Mapping[str, tuple[str, ...]], organs).items():
        matches = [name for wanted in names for name in by_words.get(words(wanted), [])]
        missing = [wanted for wanted in names if words(wanted) not in by_words]
        if missing:
            problems.append(
                f"{place(masks)}: no mask file for {organ} ({', '.join(missing)}); where the organ "
                "isn't there, an empty mask says so. Leave the organ out of --labels, or name its "
                'files, as {"kidneys": ["kidney_left", "kidney_right"]} does.'
            )
        elif len(matches) > len(names):
            problems.append(
                f"{place(masks)}: several mask files for {organ} ({', '.join(matches)}); keep one."
            )
        chosen[organ] = [masks[name] for name in matches]
    if problems:
        raise UserError(problems)
    return chosen


def _read_mask(path: Path) -> tuple[NDArray[np.bool_], Volume]:
    """(z, y, x) of one organ, and the volume that it is of."""
    array, volume = _read(path)
    values = np.flatnonzero(np.bincount(array.ravel()))
    if len(values[values > 0]) > 1:
        raise UserError(
            f"{path}: expected the mask of one organ, 0 and 1, found {shown(values, 4)}; is it a "
            "label map of several organs?"
        )
    return array > 0, volume


def _read(path: Path) -> tuple[NDArray[np.unsignedinteger], Volume]:
    """Labels (z, y, x), and the volume that they are of."""
    volume = volumes.read(path)
    # files store x fastest, so this order is contiguous
    return _as_labels(path, volume.array.transpose()), volume


def _as_labels(path: Path, array: NDArray) -> NDArray:
    """The same values as unsigned integers.

    Raises:
        UserError: values that are not whole numbers from 0 to LARGEST.
    """
    values = distinct(array)
    odd = fractional(values)
    if odd.size:
        raise UserError(
            f"{path}: expected whole numbers as labels, found {shown(odd, 4)}; probabilities must "
            "be turned into labels first."
        )
    if values[0] < 0 or values[-1] > LARGEST:
        raise UserError(
            f"{path}: expected labels from 0 to {LARGEST}, found {shown(values[:1])} to "
            f"{shown(values[-1:])}."
        )
    return np.ascontiguousarray(array, np.uint8 if values[-1] <= 255 else np.uint16)

"""The labels of a case as they are scored, from a label map or from one mask file an organ.

Masks become one label map, in which voxels of several masks have labels of their own: an organ is
scored on all of its mask.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.imaging import volumes
from pipeline.imaging.geometry import Geometry
from pipeline.imaging.grids import grid_difference
from pipeline.scoring.measures import Labels
from pipeline.scoring.organs import LARGEST, Organs
from pipeline.scoring.pairs import LabelPair, Source, place


@dataclass(frozen=True, eq=False)
class Labelled:
    """One side of a case.

    Attributes:
        array: (z, y, x) unsigned integers.
        geometry: of the source.
        organs: organ to its labels in the array.
        others: labels, or names of mask files, that belong to no organ.
        notes: what was unusual, one sentence each.
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
        UserError: a volume that can't be read, has values that are no labels, or another grid; an
            organ without a mask file.
    """
    problems, found = [], []
    for source, organs in ((pair.truth, truth), (pair.prediction, prediction)):
        try:
            found.append(read_labels(source, organs))
        except UserError as error:
            problems += error.problems
    if len(found) == 2 and (difference := grid_difference(found[0].geometry, found[1].geometry)):
        problems.append(
            f"{place(pair.prediction)}: expected the grid of {place(pair.truth)}, found "
            f"{difference}; resample the prediction to the truth's grid, or mend its header."
        )
    if problems:
        raise UserError(f"{pair.case}: {problem}" for problem in problems)
    return found[0], found[1]


def read_labels(source: Source, organs: Organs) -> Labelled:
    """One side of a case; see `read_pair`."""
    if not isinstance(source, Path):
        return _from_masks(source, organs)
    array, geometry = _read(source)
    known = {0}.union(*organs.values())
    present = np.flatnonzero(np.bincount(array.ravel()))
    others = frozenset(int(value) for value in present) - known
    return Labelled(array, geometry, dict(organs), others)


def words(name: str) -> frozenset[str]:
    """An organ's name without case, order and separators: kidney_right is right kidney."""
    return frozenset(name.lower().replace("_", " ").replace("-", " ").split())


def _from_masks(masks: Mapping[str, Path], organs: Organs) -> Labelled:
    chosen = _mask_files(masks, organs)
    # 0, each organ's own label, and one for every set of organs that share a voxel
    owners: list[frozenset[str]] = [frozenset(), *(frozenset({organ}) for organ in organs)]
    array, geometry, shared = None, None, {}
    for organ, paths in chosen.items():
        for path in paths:
            mask, grid = _read_mask(path)
            if array is None:
                array, geometry = np.zeros(mask.shape, np.uint16), grid
            elif difference := grid_difference(geometry, grid):
                raise UserError(
                    f"{path}: expected the grid of the other organs, found {difference}."
                )
            under = array[mask]
            counts = np.bincount(under)
            table = np.arange(len(counts), dtype=np.uint16)
            for value in np.flatnonzero(counts):
                for other in owners[value] - {organ}:
                    pair = tuple(sorted((organ, other)))
                    shared[pair] = shared.get(pair, 0) + int(counts[value])
                table[value] = _label_of(owners[value] | {organ}, owners)
            array[mask] = table[under]
    labels = {
        organ: tuple(label for label, owner in enumerate(owners) if organ in owner)
        for organ in organs
    }
    notes = tuple(
        f"{place(masks)}: {one} and {other} share {count} voxels; each is scored with them."
        for (one, other), count in shared.items()
    )
    used = {path for paths in chosen.values() for path in paths}
    others = frozenset(name for name, path in masks.items() if path not in used)
    return Labelled(array, geometry, labels, others, notes)


def _label_of(organs: frozenset[str], owners: list[frozenset[str]]) -> int:
    if organs not in owners:
        owners.append(organs)
    return owners.index(organs)


def _mask_files(masks: Mapping[str, Path], organs: Organs) -> dict[str, list[Path]]:
    """Organ to its mask files."""
    by_words: dict[frozenset[str], list[str]] = {}
    for name in masks:
        by_words.setdefault(words(name), []).append(name)
    chosen, problems = {}, []
    for organ, names in organs.items():
        found = [name for wanted in names for name in by_words.get(words(wanted), [])]
        missing = [wanted for wanted in names if words(wanted) not in by_words]
        if missing:
            problems.append(
                f"{place(masks)}: no mask file for {organ} ({', '.join(missing)}); where the organ "
                "isn't there, an empty mask says so. Leave the organ out of --labels, or name its "
                'files, as {"kidneys": ["kidney_left", "kidney_right"]} does.'
            )
        elif len(found) > len(names):
            problems.append(
                f"{place(masks)}: several mask files for {organ} ({', '.join(found)}); keep one."
            )
        chosen[organ] = [masks[name] for name in found]
    if problems:
        raise UserError(problems)
    return chosen


def _read_mask(path: Path) -> tuple[NDArray[np.bool_], Geometry]:
    array, geometry = _read(path)
    values = np.flatnonzero(np.bincount(array.ravel()))
    if len(values[values > 0]) > 1:
        raise UserError(
            f"{path}: expected the mask of one organ, 0 and 1, found {_some(values)}; is it a "
            "label map of several organs?"
        )
    return array > 0, geometry


def _read(path: Path) -> tuple[NDArray[np.unsignedinteger], Geometry]:
    volume = volumes.read(path)
    # files store x fastest, so this order is contiguous
    return _labels(path, volume.array.transpose()), volume.geometry


def _labels(path: Path, array: NDArray) -> NDArray:
    """Whole numbers from 0 to LARGEST, of an unsigned integer type."""
    # by hashing: sorting the voxels of a whole CT takes many seconds
    values = np.sort(pd.unique(array.ravel("K")))
    odd = values[~np.isfinite(values) | (values != np.rint(values))]
    if odd.size:
        raise UserError(
            f"{path}: expected whole numbers as labels, found {_some(odd)}; probabilities must be "
            "turned into labels first."
        )
    if values[0] < 0 or values[-1] > LARGEST:
        raise UserError(
            f"{path}: expected labels from 0 to {LARGEST}, found {values[0]:g} to {values[-1]:g}."
        )
    return np.ascontiguousarray(array, np.uint8 if values[-1] <= 255 else np.uint16)


def _some(values: Iterable[float], most: int = 4) -> str:
    values = list(values)
    return ", ".join(f"{v:g}" for v in values[:most]) + (", ..." if len(values) > most else "")

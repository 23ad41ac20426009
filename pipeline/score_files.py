"""Label volumes of any tool: found by case id, paired, read, and refused where grids differ."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline import volumes
from pipeline.check import TOLERANCE
from pipeline.errors import UserError
from pipeline.label_names import LARGEST
from pipeline.volumes import ITK, NIFTI, Geometry

SUFFIXES = (*NIFTI, *ITK)
# what image channels are called in nnU-Net's format; some tools keep it in the names of labels
CHANNEL = "_0000"


@dataclass(frozen=True)
class LabelPair:
    """The truth and the prediction of one case."""

    case: str
    truth: Path
    prediction: Path


def find_pairs(
    truth: Path, prediction: Path, names: tuple[str, str], cases: Collection[str] = ()
) -> list[LabelPair]:
    """The label volumes of two folders, paired by case id and sorted by it.

    A name that ends in nnU-Net's _0000 is matched without it where the other folder has no
    such case.

    Args:
        truth, prediction: the folders.
        names: for each, where a case's file is below it, without the ending: "{case}", or such as
            "{case}/{case}_seg" or "label{case}".
        cases: the only ones to pair; none: all.

    Raises:
        UserError: a folder is missing or without volumes, a case is there twice, or in one folder
            only; lists every such case.
    """
    folders = (truth, prediction)
    found = [_volumes(folder, name) for folder, name in zip(folders, names, strict=True)]
    first, second = _without_channel(found[0], found[1]), _without_channel(found[1], found[0])
    if cases:
        unknown = sorted(set(cases) - set(first) - set(second))
        if unknown:
            raise UserError(f"{truth}: no case {', '.join(unknown)} there or in {prediction}.")
        first, second = (
            {case: own[case] for case in cases if case in own} for own in (first, second)
        )
    problems = []
    for mine, other, folder, missing in (
        (first, second, prediction, "prediction"),
        (second, first, truth, "truth"),
    ):
        alone = sorted(set(mine) - set(other))
        if alone:
            problems.append(
                f"{folder}: no {missing} for {len(alone)} of {len(mine)} cases: "
                f"{', '.join(alone)}; add them, or name the cases to score with --case."
            )
    if problems:
        raise UserError(problems)
    return [LabelPair(case, first[case], second[case]) for case in sorted(first)]


def read_pair(pair: LabelPair) -> tuple[NDArray, NDArray, tuple[float, float, float]]:
    """Truth and prediction as unsigned integers (z, y, x), and the voxel sides along them in mm.

    Raises:
        UserError: a volume that can't be read, has values that are no labels, or another grid.
    """
    problems, found = [], []
    for path in (pair.truth, pair.prediction):
        try:
            volume = volumes.read(path)
            # files store x fastest, so this order is contiguous
            found.append((_labels(path, volume.array.transpose()), volume.geometry))
        except UserError as error:
            problems += error.problems
    if len(found) == 2 and (difference := grid_difference(found[0][1], found[1][1])):
        problems.append(
            f"{pair.prediction}: expected the grid of {pair.truth}, found {difference}; "
            "resample the prediction to the truth's grid, or mend its header."
        )
    if problems:
        raise UserError(f"{pair.case}: {problem}" for problem in problems)
    (truth, geometry), (prediction, _) = found
    return truth, prediction, geometry.spacing[::-1]


def grid_difference(expected: Geometry, found: Geometry) -> str | None:
    """How two grids differ in words: shape, spacing, origin, direction; None where no voxel lies
    further from its place than a tenth of the smallest voxel side."""
    if expected.shape != found.shape:
        return f"shape {_by(found.shape)} instead of {_by(expected.shape)}"
    distance = volumes.largest_distance(expected, found)
    allowed = TOLERANCE * min(expected.spacing)
    if distance <= allowed:
        return None
    parts = []
    if not np.allclose(expected.spacing, found.spacing, rtol=1e-4):
        parts.append(f"spacing {_by(found.spacing)} mm instead of {_by(expected.spacing)} mm")
    axes = [g.affine[:3, :3] / g.spacing for g in (expected, found)]
    if angles := _angles(*axes):
        parts.append(angles)
    shift = float(np.linalg.norm(expected.affine[:3, 3] - found.affine[:3, 3]))
    if shift > allowed:
        parts.append(f"its origin {shift:.4g} mm away")
    worst = f"voxels up to {distance:.4g} mm from their place (allowed: {allowed:.3g} mm)"
    return ", ".join([*parts, worst])


def _angles(expected: NDArray[np.float64], found: NDArray[np.float64]) -> str | None:
    cosines = np.clip((expected * found).sum(0), -1, 1)
    degrees = np.degrees(np.arccos(cosines))
    if degrees.max() < 0.01:
        return None
    turned = (f"{axis} by {angle:.3g}°" for axis, angle in zip("xyz", degrees, strict=True))
    return f"axes that point elsewhere ({', '.join(turned)})"


def _volumes(folder: Path, name: str) -> dict[str, Path]:
    """Case id to its file."""
    if name.count("{case}") == 0:
        raise UserError(f"{name!r}: expected a name with {{case}} in it, such as 'label{{case}}'.")
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of label volumes.")
    first, *others = map(re.escape, name.split("{case}"))
    pattern = first + r"(?P<case>[A-Za-z0-9][A-Za-z0-9_.-]*)" + "(?P=case)".join(others)
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("/".join("*" * (name.count("/") + 1)))):
        ending = next((end for end in SUFFIXES if path.name.lower().endswith(end)), None)
        if ending is None or path.name.startswith(".") or not path.is_file():
            continue
        relative = path.relative_to(folder).as_posix()[: -len(ending)]
        if match := re.fullmatch(pattern, relative):
            found.setdefault(match["case"], []).append(path)
    problems = [
        f"{folder}: case {case} is there more than once ({_names(paths)}); remove all but one."
        for case, paths in found.items()
        if len(paths) > 1
    ]
    if not found:
        problems.append(
            f"{folder}: no label volume of the name {name} there; expected {', '.join(SUFFIXES)}."
        )
    if problems:
        raise UserError(problems)
    return {case: paths[0] for case, paths in found.items()}


def _without_channel(mine: Mapping[str, Path], other: Mapping[str, Path]) -> dict[str, Path]:
    result = {}
    for case, path in mine.items():
        short = case.removesuffix(CHANNEL)
        result[short if short in other and short not in mine else case] = path
    return result


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


def _by(sides: Iterable[float]) -> str:
    return " x ".join(f"{side:.5g}" for side in sides)


def _names(paths: Iterable[Path]) -> str:
    return ", ".join(path.name for path in paths)

"""`hsam check`: everything wrong with a data set at once, and a fingerprint of each case.

The same checks guard `prepare`, so that bad data never reaches a shard. Nothing of a file but its
voxels and geometry is reported: headers may hold names of patients.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pipeline import datasets
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Params
from pipeline.core.pool import over_cases
from pipeline.datasets.base import LabelMap, RawCase
from pipeline.imaging import volumes
from pipeline.imaging.grids import TOLERANCE, largest_distance
from pipeline.imaging.volumes import Volume

PERCENTILES = (0.5, 50.0, 99.5)


@dataclass
class Inspection:
    """One case, read and checked: its volumes in source axes, None where one can't be used."""

    problems: list[str] = field(default_factory=list)
    image: Volume | None = None
    label: Volume | None = None


@dataclass(frozen=True)
class Report:
    """A checked data set.

    Attributes:
        name: the data set's.
        class_names: organs in the order of the class indices.
        fingerprints: one a case that could be read (see `check_case`), sorted by case.
        problems: one sentence each; none: the data set can be prepared.
    """

    name: str
    class_names: list[str]
    fingerprints: list[dict[str, Any]]
    problems: list[str]

    def rows(self) -> list[dict[str, str]]:
        """The fingerprints as text, one flat row a case, for tables."""
        return [_flat(fingerprint) for fingerprint in self.fingerprints]

    def print(self) -> None:
        """Print the fingerprints as two tables, grid and intensities, then voxels an organ."""
        console = Console()
        # a log file has no width to fit into
        console = console if console.is_terminal else Console(width=200)
        rows = self.rows()
        for keep in (lambda key: key not in self.class_names, self.class_names.__contains__):
            table = Table(box=None, header_style="bold", title_justify="left")
            keys = ["case", *(key for key in (rows[0] if rows else ()) if keep(key))]
            for key in dict.fromkeys(keys):
                table.add_column(key, justify="left" if key == "case" else "right", no_wrap=True)
            for row in rows:
                table.add_row(*(row[key] for key in dict.fromkeys(keys)))
            if rows:
                console.print(table, "")
        console.print(f"{self.name}: {len(rows)} cases, {len(self.problems) or 'no'} problems")


def missing_files(raw: RawCase) -> list[str]:
    """One sentence for each file that a case should have and hasn't."""
    problems = [
        f"{raw.case}: {path}: there is no such file; add it or remove the case."
        for path in raw.files
        if not path.is_file()
    ]
    if raw.label is None:
        problems.append(
            f"{raw.case}: {raw.image}: the image has no label volume; add it or remove the image."
        )
    return problems


def inspect(raw: RawCase, labels: LabelMap) -> Inspection:
    """Read a case and gather everything that is wrong with it; raises nothing."""
    found = Inspection(problems=missing_files(raw))
    if all(path.is_file() for path in raw.image_files):
        with _gather(found, raw):
            found.image = volumes.read(raw.image, raw.image_key)
    if raw.label is not None and all(path.is_file() for path in raw.label_files):
        with _gather(found, raw):
            found.label = volumes.read(raw.label, raw.label_key)
    if found.image is not None:
        found.problems += _image_problems(raw, found.image.array)
    if found.label is not None:
        found.problems += _label_problems(raw, found.label.array, labels)
    if found.image is not None and found.label is not None:
        found.problems += _grid_problems(raw, found.image, found.label)
    return found


def check_case(raw: RawCase, labels: LabelMap) -> tuple[list[str], dict[str, Any] | None]:
    """The problems of one case and its fingerprint.

    Returns:
        Sentences, and, when there are none: case, shape (x, y, z), spacing_mm (x, y, z),
        orientation, type of the values, minimum, maximum and percentiles of the intensity in source
        units (CT: HU), and voxels: organ to number of voxels.
    """
    found = inspect(raw, labels)
    if found.problems or found.image is None or found.label is None:
        return found.problems, None
    return [], fingerprint(raw.case, found.image, labels.apply(found.label.array), labels)


def fingerprint(
    case: str, image: Volume, classes: NDArray[np.uint8], labels: LabelMap
) -> dict[str, Any]:
    """What users can compare with others' (see `check_case`); plain JSON types."""
    array = image.array
    counts = np.bincount(classes.ravel(), minlength=len(labels.names) + 1)
    percentiles = np.percentile(array, PERCENTILES)
    return {
        "case": case,
        "shape": [int(side) for side in image.geometry.shape],
        "spacing_mm": [round(side, 4) for side in image.spacing],
        "orientation": image.geometry.orientation,
        "type": str(array.dtype.newbyteorder("=")),
        "minimum": round(float(array.min()), 3),
        "maximum": round(float(array.max()), 3),
        "percentiles": {
            f"{share:g}%": round(float(value), 3)
            for share, value in zip(PERCENTILES, percentiles, strict=True)
        },
        "voxels": {name: int(counts[k]) for k, name in enumerate(labels.names, 1)},
    }


def check_data_set(params: Params, jobs: int = 1) -> Report:
    """Check every case of `dataset`; all problems of all cases are in the report.

    Args:
        params: `dataset` is read.
        jobs: processes.
    """
    dataset = params.dataset
    entry = datasets.get(dataset)
    scan = entry.scan(dataset)
    try:
        labels = entry.labels(dataset)
    except UserError as error:
        # a description that can't be read is found by the scan already
        more = [problem for problem in error.problems if problem not in scan.problems]
        return Report(dataset.name, [], [], scan.problems + more)
    cases = {case: (raw, labels) for case, raw in scan.cases.items()}
    results, problems = over_cases(_check, cases, jobs, "check")
    return Report(
        dataset.name, list(labels.names), list(results.values()), scan.problems + problems
    )


def _check(arguments: tuple[RawCase, LabelMap]) -> dict[str, Any]:
    problems, found = check_case(*arguments)
    if found is None:
        raise UserError(problems)
    return found


@contextmanager
def _gather(found: Inspection, raw: RawCase) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        found.problems += [f"{raw.case}: {problem}" for problem in error.problems]


def _image_problems(raw: RawCase, array: NDArray[Any]) -> list[str]:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        nan, inf = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        return [
            f"{raw.case}: {raw.image}: expected finite intensities, found {nan} NaN and {inf} "
            "infinite voxels; replace them."
        ]
    if array.min() == array.max():
        return [f"{raw.case}: {raw.image}: the image is empty: every voxel is {array.flat[0]}."]
    return []


def _label_problems(raw: RawCase, array: NDArray[Any], labels: LabelMap) -> list[str]:
    # by hashing: sorting the voxels of a whole CT takes many seconds
    values = np.sort(pd.unique(array.ravel("K")))
    odd = values[~np.isfinite(values) | (values != np.rint(values))]
    if odd.size:
        return [
            f"{raw.case}: {raw.label}: expected whole numbers as labels, found "
            f"{_some(odd)}; was the label volume resampled with interpolation?"
        ]
    unknown = labels.unknown(values)
    if unknown:
        known = ", ".join(
            f"{name} {'/'.join(map(str, raws))}" for name, raws in labels.organs.items()
        )
        return [
            f"{raw.case}: {raw.label}: labels {_some(unknown)} are not in the map ({known}); "
            "add them to dataset.labels or set dataset.other_labels to background."
        ]
    return []


def _grid_problems(raw: RawCase, image: Volume, label: Volume) -> list[str]:
    first, second = image.geometry, label.geometry
    if first.shape != second.shape:
        return [
            f"{raw.case}: {raw.label}: expected the image's shape {first.shape}, "
            f"found {second.shape}."
        ]
    distance = largest_distance(first, second)
    allowed = TOLERANCE * min(first.spacing)
    if distance > allowed:
        return [
            f"{raw.case}: {raw.label}: expected the image's geometry, found voxels up to "
            f"{distance:.3g} mm away (allowed: {allowed:.3g} mm; orientation {second.orientation}, "
            f"image {first.orientation}); mend the label's header."
        ]
    return []


def _some(values: Any, most: int = 8) -> str:
    text = ", ".join(f"{value:g}" for value in values[:most])
    return text + (f", ... ({len(values)} in all)" if len(values) > most else "")


def _flat(fingerprint: dict[str, Any]) -> dict[str, str]:
    row: dict[str, str] = {}
    for key, value in fingerprint.items():
        if isinstance(value, dict):
            row |= {
                name: f"{number:g}" if "%" in name else str(number)
                for name, number in value.items()
            }
        elif isinstance(value, list):
            row[key] = " x ".join(f"{number:g}" for number in value)
        else:
            row[key] = f"{value:g}" if isinstance(value, float) else str(value)
    return row

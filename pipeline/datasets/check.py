"""Checking raw data: everything wrong with a data set at once, and a fingerprint of each case.

`hsam check` reports it, and the stage prepare refuses the same cases. Of a file's header only the
geometry is reported, since headers may hold names of patients.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from pipeline import datasets
from pipeline.core import files
from pipeline.core.console import table_console
from pipeline.core.errors import UserError, together
from pipeline.core.params.blocks import Params, Percentile, Window
from pipeline.core.pool import over_cases
from pipeline.datasets.base import LabelMap, RawCase
from pipeline.imaging.channels import each
from pipeline.imaging.grids import grid_difference
from pipeline.imaging.intensity import Rules, each_rule
from pipeline.imaging.label_values import distinct, fractional, shown
from pipeline.imaging.volumes import Volume

PERCENTILES = (0.5, 50.0, 99.5)  # of a case's intensities, in its fingerprint


@dataclass
class Inspection:
    """One case, read and checked.

    Attributes:
        problems: one sentence each; none: the case can be prepared.
        warnings: what had to be guessed or may be a mistake, one sentence each.
        image, label: (x, y, z) in source order, the image (x, y, z, C) of several channels; None
            where the file can't be read.
    """

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    image: Volume | None = None
    label: Volume | None = None


@dataclass(frozen=True)
class Report:
    """A checked data set.

    Attributes:
        name: the data set's.
        class_names: organs; `class_names[k - 1]` is class k.
        fingerprints: of the cases without problems (see `check_case`), sorted by case.
        problems: one sentence each; none: the data set can be prepared.
        channels: names of those that are used, where the data set has several.
    """

    name: str
    class_names: list[str]
    fingerprints: list[dict[str, Any]]
    problems: list[str]
    channels: tuple[str, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """Those of all cases, one sentence each; a sentence of many cases is there once."""
        return together({found["case"]: found["warnings"] for found in self.fingerprints})

    def write(self, path: Path) -> None:
        """Write all of it: the fingerprints, a row a case, as .csv; problems too as .json."""
        if path.suffix == ".json":
            content = {"problems": self.problems, "cases": self.fingerprints}
            named = {"channels": list(self.channels)} if self.channels else {}
            files.write_json(path, {"name": self.name, **named, **content})
            return
        rows = [_flat(fingerprint, self.channels) for fingerprint in self.fingerprints]
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else ["case"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        files.write_text(path, text.getvalue())

    def print(self) -> None:
        """Print a line for each case and each organ, in 80 columns, and how many problems."""
        console = table_console()
        if len(self.channels) > 1:
            console.print(f"channels, a row each: {', '.join(self.channels)}", highlight=False)
        if self.fingerprints:
            console.print(self._cases(), "", self._organs(), "")
        for warning in self.warnings:
            console.print(f"warning: {warning}", highlight=False, markup=False)
        count = f"{len(self.fingerprints)} cases, {len(self.problems) or 'no'} problems"
        count += f", {len(self.warnings)} warnings" if self.warnings else ""
        console.print(f"{self.name}: {count}", highlight=False)

    def _cases(self) -> Table:
        """A row a case, and below it one more for each channel but the first."""
        table = _table("case", "voxels, x y z", "mm, x y z", "axes", "minimum", "median", "maximum")
        for found in self.fingerprints:
            grid = (
                "x".join(map(str, found["shape"])),
                "x".join(f"{side:.3g}" for side in found["spacing_mm"]),
                found["orientation"],
            )
            for number, channel in enumerate(found.get("channels", [found])):
                table.add_row(
                    *(
                        (f"  {self.channels[number]}", *[""] * 3)
                        if number
                        else (found["case"], *grid)
                    ),
                    f"{channel['minimum']:.4g}",
                    f"{channel['percentiles']['50%']:.4g}",
                    f"{channel['maximum']:.4g}",
                )
        return table

    def _organs(self) -> Table:
        """How many cases show each organ, and voxels among those: least, median and most."""
        table = _table("organ", "cases", "least voxels", "median", "most")
        for name in self.class_names:
            voxels = [found["voxels"][name] for found in self.fingerprints]
            shown = [count for count in voxels if count]
            numbers = (min(shown), round(median(shown)), max(shown)) if shown else ("-",) * 3
            table.add_row(name, str(len(shown)), *map(str, numbers))
        return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def missing_files(raw: RawCase) -> list[str]:
    """One sentence for each file of the case that is not there."""
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


def inspect(raw: RawCase, labels: LabelMap, rule: Rules) -> Inspection:
    """Read a case and collect everything that is wrong or odd with it; raises no UserError.

    Args:
        raw: its files.
        labels: which raw labels are organs.
        rule: how intensities become [0, 1], of each channel.
    """
    found = Inspection(problems=missing_files(raw))
    if all(path.is_file() for path in raw.image_files):
        with _collecting(found, raw):
            found.image = raw.read_image()
    if raw.label is not None and all(path.is_file() for path in raw.label_files):
        with _collecting(found, raw):
            found.label = raw.read_label(found.image)
    if found.image is not None:
        for name, array in zip(raw.channel_names, each(found.image.array), strict=True):
            found.problems += _image_problems(raw, name, array)
    values = None if found.label is None else distinct(found.label.array)
    if values is not None:
        found.problems += _label_problems(raw, values, labels)
    if found.image is not None and found.label is not None:
        found.problems += _grid_problems(raw, found.image, found.label)
        found.warnings = _file_warnings(raw, found.image, found.label)
    if found.image is not None and not found.problems:
        for one, array in zip(each_rule(rule), each(found.image.array), strict=True):
            found.warnings += _window_warnings(array, one)
    if values is not None and not np.isin(values, sum(labels.organs.values(), ())).any():
        found.warnings.append("the label volume shows no organ of the map.")
    return found


def check_case(
    raw: RawCase, labels: LabelMap, rule: Rules
) -> tuple[list[str], dict[str, Any] | None]:
    """Check one case.

    Args:
        raw, labels, rule: as for `inspect`.

    Returns:
        Problems, one sentence each, and the fingerprint, None where there are problems: case,
        shape (x, y, z), spacing_mm (x, y, z), orientation, type of the values, minimum, maximum
        and percentiles of the intensity in source units (CT: HU), of the first of several channels
        and of each in `channels`, voxels: organ to number, and warnings, one sentence each.
    """
    found = inspect(raw, labels, rule)
    if found.problems or found.image is None or found.label is None:
        return found.problems, None
    classes = labels.apply(found.label.array)
    identity = fingerprint(raw.case, found.image, classes, labels)
    return [], {**identity, "warnings": found.warnings}


def fingerprint(
    case: str, image: Volume, classes: NDArray[np.uint8], labels: LabelMap
) -> dict[str, Any]:
    """What identifies a case to users who have the same data (see `check_case`).

    Args:
        case: its id.
        image: in source order, of one channel or several.
        classes: (x, y, z), class indices.
        labels: names the classes.

    Returns:
        Plain JSON types.
    """
    counts = np.bincount(classes.ravel(), minlength=len(labels.names) + 1)
    first, *others = map(_values, each(image.array))
    return {
        "case": case,
        "shape": [int(side) for side in image.geometry.shape],
        "spacing_mm": [round(side, 4) for side in image.spacing],
        "orientation": image.geometry.orientation,
        "type": str(image.array.dtype),
        **first,
        **({"channels": [first, *others]} if others else {}),
        "voxels": {name: int(counts[k]) for k, name in enumerate(labels.names, 1)},
    }


def _values(array: NDArray[Any]) -> dict[str, Any]:
    """Minimum, maximum and percentiles of a channel, in source units."""
    return {
        "minimum": round(float(array.min()), 3),
        "maximum": round(float(array.max()), 3),
        "percentiles": {
            f"{share:g}%": round(float(value), 3)
            for share, value in zip(PERCENTILES, np.percentile(array, PERCENTILES), strict=True)
        },
    }


def run(params: Params, jobs: int = 1, out: Path | None = None) -> None:
    """Check a data set, print what was found and write it to a file.

    Args:
        params: `dataset` and `prepare` are read.
        jobs: processes.
        out: .csv or .json; None: no file.

    Raises:
        UserError: with all problems of the data set, or `out` is no such file.
    """
    if out is not None and (out.suffix not in (".csv", ".json") or out.is_dir()):
        raise UserError(f"--out: expected a file that ends in .csv or .json, found {out}.")
    report = check_data_set(params, jobs)
    report.print()
    if out is not None:
        report.write(out)
    if report.problems:
        raise UserError(report.problems)


def check_data_set(params: Params, jobs: int = 1) -> Report:
    """Check every case of a data set; the report holds all problems of all cases.

    Args:
        params: `dataset` and `prepare` are read.
        jobs: number of processes.
    """
    dataset = params.dataset
    entry = datasets.get(dataset)
    listed = entry.list_cases(dataset)
    channels: tuple[str, ...] = ()
    try:
        labels = entry.labels(dataset)
        rule = datasets.intensity(params)
        channels = tuple(entry.chosen_channels(dataset))
    except UserError as error:
        # a dataset.json that can't be read is a problem of the list already
        more = [problem for problem in error.problems if problem not in listed.problems]
        return Report(dataset.name, [], [], listed.problems + more)
    cases = {case: (raw, labels, rule) for case, raw in listed.cases.items()}
    results, problems = over_cases(_check, cases, jobs, "check")
    return Report(
        dataset.name,
        list(labels.names),
        list(results.values()),
        listed.problems + problems,
        channels,
    )


def _check(arguments: tuple[RawCase, LabelMap, Rules]) -> dict[str, Any]:
    """`check_case` in a worker process: the fingerprint, or its problems as a UserError."""
    problems, found = check_case(*arguments)
    if found is None:
        raise UserError(problems)
    return found


@contextmanager
def _collecting(found: Inspection, raw: RawCase) -> Iterator[None]:
    """A UserError inside the block becomes problems of the case."""
    try:
        yield
    except UserError as error:
        found.problems += [f"{raw.case}: {problem}" for problem in error.problems]


def _image_problems(raw: RawCase, name: str, array: NDArray[Any]) -> list[str]:
    """Problems of one channel, which lies in the file of this name."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        nan, inf = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        return [
            f"{raw.case}: {name}: expected finite intensities, found {nan} NaN and {inf} "
            "infinite voxels; replace them."
        ]
    if array.min() == array.max():
        return [
            f"{raw.case}: {name}: the image is empty: every voxel is {array.flat[0]}; get it "
            "again or remove the case."
        ]
    return []


def _label_problems(raw: RawCase, values: NDArray[Any], labels: LabelMap) -> list[str]:
    """Problems of a label volume with these values, each there once."""
    odd = fractional(values)
    if odd.size:
        return [
            f"{raw.case}: {raw.label}: expected whole numbers as labels, found "
            f"{shown(odd)}; was the label volume resampled with interpolation?"
        ]
    unknown = labels.unknown(values)
    if unknown:
        known = ", ".join(
            f"{name} {'/'.join(map(str, raws))}" for name, raws in labels.organs.items()
        )
        return [
            f"{raw.case}: {raw.label}: labels {shown(unknown)} are not in the map ({known}); "
            "add them to dataset.labels or set dataset.other_labels to background."
        ]
    return []


def _grid_problems(raw: RawCase, image: Volume, label: Volume) -> list[str]:
    difference = grid_difference(image.geometry, label.geometry)
    if difference is None:
        return []
    return [
        f"{raw.case}: {raw.label}: expected the image's grid, found {difference}; mend the label's "
        "header."
    ]


def _file_warnings(raw: RawCase, image: Volume, label: Volume) -> list[str]:
    """What the files leave open, each sentence once, with the volume that it is about."""
    if set(image.warnings) == set(label.warnings):
        return [f"image and label: {warning}" for warning in image.warnings]
    return [f"image: {warning}" for warning in image.warnings] + [
        f"label: {warning}" for warning in label.warnings
    ]


def _window_warnings(array: NDArray[Any], rule: Window | Percentile) -> list[str]:
    """A warning where a window leaves one value of an image."""
    if rule.kind != "window" or (array.max() > rule.low and array.min() < rule.high):
        return []
    return [
        f"image: every voxel is outside the window [{rule.low:g}, {rule.high:g}]: the prepared "
        "image is constant."
    ]


def _flat(fingerprint: dict[str, Any], channels: Sequence[str] = ()) -> dict[str, str]:
    """A fingerprint as one row of text, its inner mappings as columns of their own."""
    row: dict[str, str] = {}
    for key, value in fingerprint.items():
        if key == "channels":
            # the first one has the columns that a single one has
            for name, channel in zip(channels[1:], value[1:], strict=True):
                row |= {f"{column} ({name})": text for column, text in _flat(channel).items()}
        elif isinstance(value, dict):
            row |= {
                name: f"{number:g}" if "%" in name else str(number)
                for name, number in value.items()
            }
        elif key == "warnings":
            row[key] = " ".join(value)
        elif isinstance(value, list):
            row[key] = " x ".join(f"{number:g}" for number in value)
        else:
            row[key] = f"{value:g}" if isinstance(value, float) else str(value)
    return row

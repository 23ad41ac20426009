"""Any folder in nnU-Net's raw format, so that users bring their own data without code.

`dataset.json` names channels, labels and the file ending. Both versions of it are read: the first
has `modality` and labels as number to name, the second `channel_names` and name to number.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError
from pipeline.core.files import read_json
from pipeline.core.params.blocks import Dataset, Percentile, Window
from pipeline.datasets.base import (
    CT_WINDOW,
    MR_PERCENTILES,
    CaseList,
    DataSet,
    LabelMap,
    RawCase,
    file_cases,
    pair,
)

JSON = "dataset.json"
# formats that keep header and voxels in one file
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")


class NnUNet(DataSet):
    """A folder in nnU-Net's raw format; classes are in the order of their raw labels."""

    name = "nnunet"
    layout = "dataset.json, imagesTr/CASE_0000.nii.gz and labelsTr/CASE.nii.gz"
    source = "your own (docs/data.md)"

    def _find_cases(self, dataset: Dataset) -> CaseList:
        root = Path(dataset.root)
        try:
            description = _read_description(root)
        except UserError as error:
            return CaseList(problems=error.problems)
        if description.listed is not None:
            return _listed_cases(root, description.listed)
        images, ending = root / "imagesTr", description.ending
        channels = file_cases(images, rf"(?P<case>.+)_\d{{4}}{re.escape(ending)}")
        labels = file_cases(root / "labelsTr", rf"(?P<case>.+){re.escape(ending)}")
        first = {
            case: [path for path in paths if path.name == f"{case}_0000{ending}"]
            for case, paths in channels.items()
        }
        found = pair(first, labels, lambda case: images / f"{case}_0000{ending}")
        found.problems += [
            f"{images}: case {case} has {len(paths)} channels "
            f"({', '.join(path.name for path in paths)}); H-SAM takes one: keep _0000 only."
            for case, paths in channels.items()
            if len(paths) > 1
        ]
        return found

    def _labels(self, dataset: Dataset) -> LabelMap:
        root = Path(dataset.root)
        return LabelMap(_organs(root / JSON, _read_description(root).labels))

    def _known(self, dataset: Dataset) -> frozenset[int]:
        values = _read_description(Path(dataset.root)).labels.values()
        lists = (value if isinstance(value, list) else [value] for value in values)
        return frozenset(raw for raws in lists for raw in raws if isinstance(raw, int))

    def intensity(self, dataset: Dataset) -> Window | Percentile:
        """The window for CT where dataset.json has a channel CT, else the percentiles for MR."""
        channel = _read_description(Path(dataset.root)).channel
        return CT_WINDOW if channel.strip().upper() == "CT" else MR_PERCENTILES


@dataclass(frozen=True)
class Description:
    """The parts of dataset.json that are used.

    Attributes:
        channel: the one channel's name, such as "CT" or "T2".
        labels: name to raw label or list of them, without the background.
        ending: file ending of all volumes, such as ".nii.gz".
        listed: `dataset`, an explicit list: case to images and label, relative to the root;
            None where there is none.
    """

    channel: str
    labels: dict[str, Any]
    ending: str
    listed: dict[str, Any] | None


def _read_description(root: Path) -> Description:
    """Read and check dataset.json; UserError with everything wrong in it."""
    path = root / JSON
    try:
        value = read_json(path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; nnU-Net's raw format needs it.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not valid JSON ({error}).") from None
    value = value if isinstance(value, dict) else {}
    problems = []
    channels: Any = value.get("channel_names", value.get("modality"))
    if not isinstance(channels, dict) or not channels:
        problems.append(f"{path}: expected channel_names, a mapping such as {{'0': 'CT'}}.")
    elif len(channels) > 1:
        names = ", ".join(map(str, channels.values()))
        problems.append(
            f"{path}: channel_names has {len(channels)} channels ({names}); H-SAM takes one. "
            "Write a data set with the one to use."
        )
    labels: Any = value.get("labels")
    if not isinstance(labels, dict):
        problems.append(f"{path}: expected labels, a mapping such as {{'liver': 1}}.")
    ending = value.get("file_ending", ".nii.gz")
    if ending not in ENDINGS:
        known = ", ".join(ENDINGS)
        problems.append(f"{path}: file_ending {ending!r} can't be read; expected one of {known}.")
    listed = value.get("dataset")
    if listed is not None and not isinstance(listed, dict):
        problems.append(f"{path}: expected dataset to map case ids to their files.")
    if problems:
        raise UserError(problems)
    return Description(str(next(iter(channels.values()))), _by_name(labels), ending, listed)


def _by_name(labels: dict[str, Any]) -> dict[str, Any]:
    """Labels as name to raw label, without the background; version 1 has number to name."""
    if labels and all(name.isdigit() and isinstance(value, str) for name, value in labels.items()):
        labels = {name: int(number) for number, name in labels.items()}
    return {name: value for name, value in labels.items() if value not in (0, [0])}


def _organs(path: Path, labels: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Organ to raw labels, sorted by them.

    Raises:
        UserError: overlapping regions, the label `ignore`, or labels that are no numbers.
    """
    organs: dict[str, tuple[int, ...]] = {}
    problems: list[str] = []
    owner: dict[int, str] = {}
    for name, value in labels.items():
        raws = value if isinstance(value, list) else [value]
        if name == "ignore":
            problems.append(
                f"{path}: labels.ignore marks voxels without truth, which H-SAM has no use for. "
                "Name the organs in dataset.labels and set dataset.other_labels to background."
            )
            continue
        if not raws or any(not isinstance(raw, int) or raw <= 0 for raw in raws):
            problems.append(
                f"{path}: labels.{name}: expected a number above 0 or a list of them, "
                f"found {value!r}."
            )
            continue
        shared = sorted({owner[raw] for raw in raws if raw in owner})
        if shared:
            problems.append(
                f"{path}: region {name} overlaps {', '.join(shared)}; H-SAM gives each voxel one "
                "organ. Name disjoint ones in dataset.labels."
            )
        owner |= dict.fromkeys(raws, name)
        organs[name] = tuple(raws)
    if not organs and not problems:
        problems.append(f"{path}: labels names no organ besides the background.")
    if problems:
        raise UserError(problems)
    return dict(sorted(organs.items(), key=lambda item: item[1]))


def _listed_cases(root: Path, listed: dict[str, Any]) -> CaseList:
    """The cases that dataset.json lists one by one."""
    found = CaseList()
    for case, entry in listed.items():
        images = entry.get("images") if isinstance(entry, dict) else None
        label = entry.get("label") if isinstance(entry, dict) else None
        if not isinstance(images, list) or len(images) != 1 or not isinstance(images[0], str):
            found.problems.append(
                f"{root / JSON}: dataset.{case}: expected one image, found {images!r}."
            )
            continue
        found.add(RawCase(case, root / images[0], root / label if label else None))
    return found

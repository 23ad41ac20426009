"""Any folder in nnU-Net's raw format, so that users bring their own data without code.

`dataset.json` names channels, labels and the file ending. Both versions of it are read: the first
has `modality` and labels as number to name, the second `channel_names` and name to number. So is
what the first took after, the Medical Segmentation Decathlon's, which lists its files in `training`
and names images without a channel.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.core.errors import UserError, few
from pipeline.core.files import read_json
from pipeline.core.params.blocks import Dataset
from pipeline.datasets import nnunet_folds
from pipeline.datasets.base import (
    CT_WINDOW,
    MR_PERCENTILES,
    CanonicalSplit,
    CaseList,
    DataSet,
    LabelMap,
    RawCase,
    file_cases,
    pair,
)
from pipeline.datasets.channels import unique
from pipeline.imaging.channels import ChannelFile, joined
from pipeline.imaging.intensity import Rules

JSON = "dataset.json"
# formats that keep header and voxels in one file
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
PARTS = ("images", "labels")  # folders, each for training, Tr, and for tests, Ts
CHANNEL = "_0000"  # of the first channel, at the end of an image's name


class NnUNet(DataSet):
    """A folder in nnU-Net's raw format; classes are in the order of their raw labels."""

    name = "nnunet"
    layout = "dataset.json, imagesTr/CASE_0000.nii.gz and labelsTr/CASE.nii.gz"
    source = "your own (docs/data.md)"

    def _find_cases(self, dataset: Dataset) -> CaseList:
        root = Path(dataset.root)
        try:
            description = _read_description(root)
            used = _used(self.chosen_channels(dataset))
        except UserError as error:
            return CaseList(problems=error.problems)
        if description.listed is not None:
            return _listed_cases(root, description, used)
        if (decathlon := _decathlon_cases(root, description, used)) is not None:
            return decathlon
        images, ending = root / "imagesTr", description.ending
        channels = file_cases(images, rf"(?P<case>.+)_\d{{4}}{re.escape(ending)}")
        labels = file_cases(root / "labelsTr", rf"(?P<case>.+){re.escape(ending)}")
        suffix = f"_{used[0]:04}"
        first = {
            case: [path for path in paths if path.name == f"{case}{suffix}{ending}"]
            for case, paths in channels.items()
        }
        misnamed = _without_number(images, ending, channels, labels)
        misnamed += _with_number(root / "labelsTr", ending, channels, labels)
        found = pair(first, labels, lambda case: images / f"{case}{suffix}{ending}")
        found.cases = {
            case: _of_files(raw, images, ending, used) for case, raw in found.cases.items()
        }
        found.problems += misnamed
        known = description.channels
        found.problems += [
            f"{images}: case {case} has {len(paths)} channels "
            f"({', '.join(path.name for path in paths)}), dataset.json names {len(known)} "
            f"({', '.join(known)}); name all of them in channel_names, or remove the others."
            for case, paths in channels.items()
            if len(paths) > len(known)
        ]
        return found

    def channels(self, dataset: Dataset) -> tuple[str, ...]:
        """Those of dataset.json."""
        return _read_description(Path(dataset.root)).channels

    def _labels(self, dataset: Dataset) -> LabelMap:
        root = Path(dataset.root)
        return LabelMap(_organs(root / JSON, _read_description(root).labels))

    def _known(self, dataset: Dataset) -> frozenset[int]:
        values = _read_description(Path(dataset.root)).labels.values()
        lists = (value if isinstance(value, list) else [value] for value in values)
        return frozenset(raw for raws in lists for raw in raws if _is_label(raw))

    def recognises(self, dataset: Dataset) -> bool:
        """Whether it looks so, whatever is wrong with it, and has no labelled tests."""
        root = Path(dataset.root)
        return _looks_raw(root) and not _labelled_tests(root)

    def title(self, dataset: Dataset) -> str:
        """The name in dataset.json, or else the folder's."""
        root = Path(dataset.root)
        return _read_description(root).name or root.resolve().name

    def folds(self, dataset: Dataset) -> Sequence[Sequence[str]]:
        """nnU-Net's own, of splits_final.json."""
        path = nnunet_folds.find(Path(dataset.root))
        cases = list(self._find_cases(dataset).cases)
        return () if path is None else nnunet_folds.read(path, cases)

    def intensity(self, dataset: Dataset) -> Rules:
        """The window for a channel that dataset.json calls CT, else the percentiles for MR."""
        names = _read_description(Path(dataset.root)).channels
        used = _used(self.chosen_channels(dataset))
        return joined(
            [
                CT_WINDOW if names[number].strip().upper() == "CT" else MR_PERCENTILES
                for number in used
            ]
        )


class NnUNetTested(NnUNet):
    """The same with labelled test cases in imagesTs and labelsTs, which are the canonical split."""

    name = "nnunet_ts"
    layout = f"{NnUNet.layout}, and the same in imagesTs and labelsTs"

    def recognises(self, dataset: Dataset) -> bool:
        """Whether it looks so and has labels of test cases."""
        root = Path(dataset.root)
        return _looks_raw(root) and bool(_labelled_tests(root))

    def _find_cases(self, dataset: Dataset) -> CaseList:
        found, root = super()._find_cases(dataset), Path(dataset.root)
        tests = _labelled_tests(root)
        if not tests and found.cases:
            found.problems.append(
                f"{root / 'labelsTs'}: there is no label of a test case; add them, or set "
                f"dataset.name to {NnUNet.name}."
            )
        try:
            used = _used(self.chosen_channels(dataset))
        except UserError:
            return found
        for raw in tests.values():
            ending = next(ending for ending in ENDINGS if raw.image.name.endswith(ending))
            plain = not raw.image.name.endswith(f"{CHANNEL}{ending}")
            if plain:
                found.add(_of_places(raw, used, len(self.channels(dataset))))
            else:
                found.add(_of_files(raw, root / "imagesTs", ending, used))
        return found

    def canonical(self, dataset: Dataset) -> CanonicalSplit:
        """The cases of labelsTs are for tests, the others for training."""
        cases = super()._find_cases(dataset).cases
        return CanonicalSplit(tuple(cases), tuple(_labelled_tests(Path(dataset.root))))


def _looks_raw(root: Path) -> bool:
    """Whether there is a dataset.json, or the folders that want one."""
    return (root / JSON).is_file() or all((root / f"{part}Tr").is_dir() for part in PARTS)


def _labelled_tests(root: Path) -> dict[str, RawCase]:
    """Case id to the files of each label in labelsTs; the image need not be there."""
    found = {}
    for ending in ENDINGS:
        for case, paths in file_cases(
            root / "labelsTs", rf"(?P<case>.+){re.escape(ending)}"
        ).items():
            numbered = root / "imagesTs" / f"{case}{CHANNEL}{ending}"
            plain = root / "imagesTs" / f"{case}{ending}"
            found[case] = RawCase(case, plain if plain.is_file() else numbered, paths[0])
    return found


def _without_number(
    folder: Path, ending: str, channels: Mapping[str, Any], labels: dict[str, list[Path]]
) -> list[str]:
    """A problem if images lack the number of their channel; their labels are taken out."""
    images = file_cases(folder, rf"(?P<case>.+){re.escape(ending)}")
    misnamed = [
        case for case in images if case not in channels and not re.fullmatch(r".+_\d{4}", case)
    ]
    for case in misnamed:
        labels.pop(case, None)
    if not misnamed:
        return []
    case = misnamed[0]
    return [
        f"{folder}: {len(misnamed)} images lack the number of their channel "
        f"({few(case + ending for case in misnamed)}); rename {case}{ending} to "
        f"{case}{CHANNEL}{ending}, and so on."
    ]


def _with_number(
    folder: Path, ending: str, channels: Mapping[str, Any], labels: dict[str, list[Path]]
) -> list[str]:
    """A problem if labels have the number of a channel; they are taken as those of their case."""
    misnamed = [
        case
        for case in labels
        if case.endswith(CHANNEL)
        and case not in channels
        and case.removesuffix(CHANNEL) in channels.keys() - labels.keys()
    ]
    for case in misnamed:
        labels[case.removesuffix(CHANNEL)] = labels.pop(case)
    if not misnamed:
        return []
    case = misnamed[0]
    return [
        f"{folder}: {len(misnamed)} labels have the number of a channel "
        f"({few(case + ending for case in misnamed)}); rename {case}{ending} to "
        f"{case.removesuffix(CHANNEL)}{ending}, and so on."
    ]


@dataclass(frozen=True)
class Description:
    """The parts of dataset.json that are used.

    Attributes:
        name: what the data set calls itself; None: it doesn't say.
        channels: names such as "CT" or "T2", in the order of their numbers.
        labels: name to raw label or list of them, without the background.
        ending: file ending of all volumes, such as ".nii.gz".
        training: `training`, the Decathlon's list of files; None where there is none.
        listed: `dataset`, an explicit list: case to images and label, relative to the root;
            None where there is none.
    """

    name: str | None
    channels: tuple[str, ...]
    labels: dict[str, Any]
    ending: str
    training: list[Any] | None
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
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a mapping, found {type(value).__name__}.")
    problems = []
    channels: Any = value.get("channel_names", value.get("modality"))
    if not isinstance(channels, dict) or not channels:
        problems.append(f"{path}: expected channel_names, a mapping such as {{'0': 'CT'}}.")
    elif len(channels) > 1 and sorted(channels) != sorted(map(str, range(len(channels)))):
        problems.append(
            f"{path}: channel_names: expected the numbers '0', '1', ... of the channels, found "
            f"{', '.join(map(repr, channels))}."
        )
    labels: Any = value.get("labels")
    if not isinstance(labels, dict):
        problems.append(f"{path}: expected labels, a mapping such as {{'liver': 1}}.")
    ending = value.get("file_ending", ".nii.gz")
    if ending not in ENDINGS:
        known = ", ".join(ENDINGS)
        problems.append(f"{path}: file_ending {ending!r} can't be read; expected one of {known}.")
    listed, training = value.get("dataset"), value.get("training")
    if isinstance(channels, dict) and not all(isinstance(n, str) for n in channels.values()):
        problems.append(f"{path}: channel_names: expected names such as 'CT', found {channels}.")
    if listed is not None and not isinstance(listed, dict):
        problems.append(f"{path}: expected dataset to map case ids to their files.")
    if problems:
        raise UserError(problems)
    name = value.get("name")
    return Description(
        name.strip() if isinstance(name, str) and name.strip() else None,
        unique([channels[number] for number in sorted(channels, key=lambda n: (len(n), n))]),
        _by_name(labels),
        ending,
        training if isinstance(training, list) else None,
        listed,
    )


def _by_name(labels: dict[str, Any]) -> dict[str, Any]:
    """Labels as name to raw label, without the background; version 1 has number to name."""
    if labels and all(
        name.isdecimal() and isinstance(value, str) for name, value in labels.items()
    ):
        labels = {name: int(number) for number, name in labels.items()}
    return {name: value for name, value in labels.items() if not _is_background(value)}


def _is_label(value: Any) -> bool:
    # JSON's true and false are ints to Python
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_background(value: Any) -> bool:
    values = value if isinstance(value, list) else [value]
    return len(values) == 1 and values[0] == 0 and not isinstance(values[0], bool)


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
        if not raws or not all(map(_is_label, raws)):
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


def _used(chosen: Mapping[str, int]) -> tuple[int, ...]:
    """Numbers of the channels that are used."""
    return tuple(chosen.values()) or (0,)


def _of_files(raw: RawCase, folder: Path, ending: str, used: Sequence[int]) -> RawCase:
    """The case with a file for each channel that is used."""
    paths = [folder / f"{raw.case}_{number:04}{ending}" for number in used]
    several = tuple(map(ChannelFile, paths)) if len(paths) > 1 else ()
    return replace(raw, image=paths[0], channels=several)


def _of_places(raw: RawCase, used: Sequence[int], known: int) -> RawCase:
    """The case with a 4-D file, of `known` channels, of which some are used."""
    places = tuple(ChannelFile(raw.image, number) for number in used)
    return replace(raw, channels=places if known > 1 else ())


def _decathlon_cases(root: Path, description: Description, used: Sequence[int]) -> CaseList | None:
    """The cases of the Decathlon's list; None: there is none, or its images have other names.

    nnU-Net's first version has the list too, of names without the channel that its files have.
    """
    pairs = [
        (root / entry["image"], root / entry["label"])
        for entry in description.training or []
        if isinstance(entry, dict)
        and all(isinstance(entry.get(key), str) for key in ("image", "label"))
    ]
    if not any(image.is_file() for image, _ in pairs):
        return None
    found = CaseList()
    for image, label in pairs:
        raw = RawCase(image.name.removesuffix(description.ending), image, label)
        found.add(_of_places(raw, used, len(description.channels)))
    return found


def _listed_cases(root: Path, description: Description, used: Sequence[int]) -> CaseList:
    """The cases that dataset.json lists one by one."""
    found, known = CaseList(), len(description.channels)
    what = "one image" if known == 1 else f"{known} images, one for each channel"
    for case, entry in (description.listed or {}).items():
        images = entry.get("images") if isinstance(entry, dict) else None
        label = entry.get("label") if isinstance(entry, dict) else None
        if not (
            isinstance(images, list)
            and len(images) == known
            and all(isinstance(image, str) and image for image in images)
        ):
            found.problems.append(
                f"{root / JSON}: dataset.{case}: expected {what}, found {images!r}."
            )
            continue
        if label is not None and not (isinstance(label, str) and label):
            found.problems.append(
                f"{root / JSON}: dataset.{case}: expected the path of its label, found {label!r}."
            )
            continue
        paths = [root / images[number] for number in used]
        several = tuple(map(ChannelFile, paths)) if len(paths) > 1 else ()
        of_label = None if label is None else root / label
        found.add(RawCase(case, paths[0], of_label, channels=several))
    return found

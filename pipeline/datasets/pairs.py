"""A folder of images and label volumes that pair up by their names, such as BIDS derivatives.

A file is a label where its name or a folder on the way to it says so. What is left of the path
without such words is the case: `images/a` and `labels/a`, `a` and `a_seg`, `a/image` and `a/mask`,
`sub-01/anat/sub-01_T1w` and `derivatives/manual/sub-01/anat/sub-01_dseg`.

Images of several channels have the channel's name behind the case's: `a_T2`, `a_ADC` and `a_seg`.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Dataset
from pipeline.datasets.base import (
    CT_WINDOW,
    MR_PERCENTILES,
    CaseList,
    DataSet,
    LabelMap,
    pair,
    walk,
)
from pipeline.imaging.channels import ChannelFile, joined
from pipeline.imaging.intensity import Rules

# formats that keep header and voxels in one file
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
LABEL_WORDS = r"d?seg|segs|segmentations?|labels?|masks?|gts?|ground_?truths?|annotations?"
IMAGE_WORDS = r"images?|imgs?|volumes?|vols?|scans?|anat|rawdata"
LABEL = re.compile(rf"(?<![A-Za-z])(?:{LABEL_WORDS})(?![A-Za-z])", re.IGNORECASE)
EITHER = re.compile(rf"(?<![A-Za-z])(?:{LABEL_WORDS}|{IMAGE_WORDS})(?![A-Za-z])", re.IGNORECASE)
# what tells one scan of a subject from another in BIDS
SUBJECT = re.compile(r"sub-[A-Za-z0-9]+(?:_ses-[A-Za-z0-9]+)?(?:_run-[A-Za-z0-9]+)?")
DERIVATIVES = "derivatives"


class Pairs(DataSet):
    """Images and labels of any names that pair up; `dataset.labels` says what labels mean."""

    name = "pairs"
    layout = (
        "images and label volumes that pair up by name (images/a.nii.gz and labels/a.nii.gz, or "
        "a.nii.gz and a_seg.nii.gz)"
    )
    source = "your own (docs/data.md)"
    generic = True
    names_labels = False

    def _find_cases(self, dataset: Dataset) -> CaseList:
        root = Path(dataset.root)
        images, labels = _by_case(root)
        if not labels:
            return CaseList()
        if not (by_channel := _by_channel(images, labels)):
            # a scan without a label is a case that can't be learned from, and a problem to mend
            return pair(images, labels, lambda case: root / f"{case}.nii.gz")
        names = _names(by_channel)
        # recognising a folder comes before any choice
        used = names if dataset.channels is None else self.chosen_channels(dataset) or names
        paths = {
            case: [_of_channel(root, case, name, by_channel.get(case, {})) for name in used]
            for case in by_channel.keys() | labels.keys()
        }
        found = pair({case: of[:1] for case, of in paths.items()}, labels, Path)
        if len(used) > 1:
            found.cases = {
                case: replace(raw, channels=tuple(map(ChannelFile, paths[case])))
                for case, raw in found.cases.items()
            }
        return found

    def channels(self, dataset: Dataset) -> tuple[str, ...]:
        """What follows the case in the images' names, sorted."""
        return _names(_by_channel(*_by_case(Path(dataset.root))))

    def _labels(self, dataset: Dataset) -> LabelMap:
        raise UserError(
            f"dataset.labels: the files of {dataset.root} don't say what their labels mean; name "
            "them, such as {liver: 1} (`hsam init` finds the values)."
        )

    def _known(self, dataset: Dataset) -> frozenset[int]:
        return frozenset()

    def intensity(self, dataset: Dataset) -> Rules:
        """The percentiles for MR; nothing says that it is CT, but the name of a channel may."""
        names = self.chosen_channels(dataset) or ("",)
        return joined([CT_WINDOW if name.upper() == "CT" else MR_PERCENTILES for name in names])

    def title(self, dataset: Dataset) -> str:
        """The folder's name."""
        return Path(dataset.root).resolve().name

    def label_names(self, dataset: Dataset) -> dict[int, str]:
        """Raw label to name, of BIDS' tables of indices and names (`*dseg.tsv`)."""
        names: dict[int, str] = {}
        for path in walk(Path(dataset.root)):
            if path.name.endswith("dseg.tsv"):
                for row in csv.DictReader(io.StringIO(files.read_text(path)), delimiter="\t"):
                    index, name = row.get("index") or "", row.get("name") or ""
                    if index.isdecimal() and int(index) and name.strip():
                        names[int(index)] = name.strip()
        return names


def _volumes(root: Path) -> Iterator[Path]:
    return (path for path in walk(root) if path.name.lower().endswith(ENDINGS))


def _by_case(root: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Case to its images, and to its labels; an image of several channels may be a case yet."""
    images: dict[str, list[Path]] = {}
    labels: dict[str, list[Path]] = {}
    for path in _volumes(root):
        parts = _parts(path.relative_to(root))
        found = labels if _is_label(parts) else images
        found.setdefault(_case(parts), []).append(path)
    return images, labels


def _by_channel(
    images: Mapping[str, list[Path]], labels: Mapping[str, list[Path]]
) -> dict[str, dict[str, list[Path]]]:
    """Case to channel to its files, where names of images tell of channels; else empty.

    They do where images are named after a label, with the channel behind it, or where several
    images of a subject in BIDS differ in what follows the last "_".
    """
    found: dict[str, dict[str, list[Path]]] = {}
    if any(len(paths) > 1 for paths in images.values()):
        for case, paths in images.items():
            for path in paths:
                name = _parts(Path(path.name))[-1].rpartition("_")[2]
                found.setdefault(case, {}).setdefault(name, []).append(path)
        # files of one name are the same image twice
        return (
            {} if any(len(same) > 1 for one in found.values() for same in one.values()) else found
        )
    if images.keys() & labels.keys():
        return {}
    for image, (path, *_) in images.items():
        owners = [label for label in labels if re.match(rf"{re.escape(label)}[_.-]", image)]
        if not owners:
            return {}
        case = max(owners, key=len)
        found.setdefault(case, {}).setdefault(image[len(case) + 1 :], []).append(path)
    return found


def _of_channel(root: Path, case: str, name: str, there: Mapping[str, list[Path]]) -> Path:
    """The file of a case's channel, or where it should be."""
    if name in there:
        return there[name][0]
    other, [path] = next(iter(there.items()), (name, [root / f"{case}_{name}.nii.gz"]))
    before, _, after = path.name.rpartition(other)
    return path.with_name(f"{before}{name}{after}")


def _names(by_channel: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(sorted({name for channels in by_channel.values() for name in channels}))


def _parts(path: Path) -> list[str]:
    """Folders and name of a file, the name without its ending."""
    ending = next(ending for ending in ENDINGS if path.name.lower().endswith(ending))
    return [*path.parts[:-1], path.name[: -len(ending)]]


def _is_label(parts: list[str]) -> bool:
    return any(LABEL.search(part) for part in parts)


def _case(parts: list[str]) -> str:
    """What is left of a path without the words that say which file it is."""
    if subject := SUBJECT.match(parts[-1]):
        return subject[0]
    if parts[0] == DERIVATIVES:
        parts = parts[2:] or parts[1:]
    rest = [part for part in (EITHER.sub("", part).strip("_-. ") for part in parts) if part]
    # a case's folder mostly has its name, and so have the files in it
    named = [part for part in rest[:-1] if not rest[-1].startswith(part)] + rest[-1:]
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", "_".join(named)) or parts[-1]

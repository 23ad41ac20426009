"""A folder of images and label volumes that pair up by their names, such as BIDS derivatives.

A file is a label where its name or a folder on the way to it says so. What is left of the path
without such words is the case: `images/a` and `labels/a`, `a` and `a_seg`, `a/image` and `a/mask`,
`sub-01/anat/sub-01_T1w` and `derivatives/manual/sub-01/anat/sub-01_dseg`.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Dataset, Percentile
from pipeline.datasets.base import MR_PERCENTILES, CaseList, DataSet, LabelMap, pair, walk

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
        images: dict[str, list[Path]] = {}
        labels: dict[str, list[Path]] = {}
        for path in _volumes(root):
            parts = _parts(path.relative_to(root))
            found = labels if _is_label(parts) else images
            found.setdefault(_case(parts), []).append(path)
        # a scan without a label is a case that can't be learned from, and a problem to mend
        return pair(images, labels, lambda case: root / f"{case}.nii.gz") if labels else CaseList()

    def _labels(self, dataset: Dataset) -> LabelMap:
        raise UserError(
            f"dataset.labels: the files of {dataset.root} don't say what their labels mean; name "
            "them, such as {liver: 1} (`hsam init` finds the values)."
        )

    def _known(self, dataset: Dataset) -> frozenset[int]:
        return frozenset()

    def intensity(self, dataset: Dataset) -> Percentile:
        """The percentiles for MR; nothing says that it is CT."""
        return MR_PERCENTILES

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

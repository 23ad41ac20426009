"""PROMISE12: T2-weighted prostate MR, 50 training cases from four centres."""

import re
from dataclasses import replace
from pathlib import Path

from pipeline.core.params.blocks import Dataset, Percentile
from pipeline.datasets.base import (
    MR_PERCENTILES,
    CanonicalSplit,
    CaseList,
    DataSet,
    LabelMap,
    RawCase,
    file_cases,
    pair,
)

# numbers of the test cases in H-SAM's paper and the few-shot work before it
TEST = (16, 35, 34, 49, 23, 12, 28, 43, 20, 13)


class Promise12(DataSet):
    """PROMISE12; case ids are Case00 to Case49."""

    name = "promise12"
    called = "PROMISE12"
    published_axes = "SPL"  # arrays as SimpleITK gives them
    layout = "CaseNN.mhd, CaseNN.raw, CaseNN_segmentation.mhd and CaseNN_segmentation.raw"
    source = "promise12.grand-challenge.org, TrainingData (zenodo.org, record 8026660)"

    def _find_cases(self, dataset: Dataset) -> CaseList:
        root = Path(dataset.root)
        images = file_cases(root, r"(?P<case>Case\d+)\.mh[da]")
        labels = file_cases(root, r"(?P<case>Case\d+)_segmentation\.mh[da]")
        found = pair(images, labels, lambda case: root / f"{case}.mhd")
        found.cases = {case: _with_voxels(raw) for case, raw in found.cases.items()}
        return found

    def _labels(self, dataset: Dataset) -> LabelMap:
        return LabelMap({"prostate": (1,)})

    def intensity(self, dataset: Dataset) -> Percentile:
        """The percentiles for MR."""
        return MR_PERCENTILES

    def canonical(self, dataset: Dataset) -> CanonicalSplit:
        """Ten test volumes; the other forty are for training."""
        numbers = range(50)
        return CanonicalSplit(
            tuple(f"Case{number:02}" for number in numbers if number not in TEST),
            tuple(f"Case{number:02}" for number in TEST),
        )


def _with_voxels(raw: RawCase) -> RawCase:
    """The case with the voxel files that its headers name."""
    return replace(raw, image_voxels=_voxels(raw.image), label_voxels=_voxels(raw.label))


def _voxels(header: Path | None) -> Path | None:
    """The file named by ElementDataFile in a MetaImage header; None where the voxels follow it."""
    if header is None or not header.is_file():
        return None
    with open(header, "rb") as file:
        text = file.read(10_000).decode("latin-1")
    name = re.search(r"^ElementDataFile[ \t]*=[ \t]*(.+?)\s*$", text, re.MULTILINE)
    if name is None or name[1].upper().startswith(("LOCAL", "LIST")):
        return None
    return header.parent / name[1]

"""Synapse (BTCV, MICCAI 2015 multi-atlas abdomen challenge): abdominal CT, eight organs."""

from pathlib import Path

from pipeline.core.params.blocks import Dataset
from pipeline.datasets.base import CanonicalSplit, CaseList, DataSet, LabelMap, file_cases, pair

IMAGES, LABELS = Path("Training", "img"), Path("Training", "label")
# the organs of TransUNet's evaluation, in its order, with BTCV's raw labels
ORGANS = {
    "spleen": (1,),
    "right kidney": (2,),
    "left kidney": (3,),
    "gallbladder": (4,),
    "liver": (6,),
    "stomach": (7,),
    "aorta": (8,),
    "pancreas": (11,),
}
# esophagus, inferior vena cava, portal and splenic vein, right and left adrenal gland
IGNORED = frozenset({5, 9, 10, 12, 13})
# numbers of the cases in TransUNet's split
TEST = (1, 2, 3, 4, 8, 22, 25, 29, 32, 35, 36, 38)
TRAIN = (5, 6, 7, 9, 10, 21, 23, 24, 26, 27, 28, 30, 31, 33, 34, 37, 39, 40)


def image_path(root: Path, case: str) -> Path:
    """Path of the image of a case `imgNNNN`."""
    return root / IMAGES / f"{case}.nii.gz"


def label_path(root: Path, case: str) -> Path:
    """Path of the label of a case `imgNNNN`."""
    return root / LABELS / f"{case.replace('img', 'label', 1)}.nii.gz"


def case_id(number: int) -> str:
    """Case id of a number: 1 -> "img0001"."""
    return f"img{number:04}"


class Synapse(DataSet):
    """Synapse; case ids are the images' names: img0001 to img0010 and img0021 to img0040."""

    name = "synapse"
    called = "Synapse"
    layout = "Training/img/imgNNNN.nii.gz and Training/label/labelNNNN.nii.gz"
    # arrays (x, y, z) -> (z, y, x), of files that store x, y, z to the left, front and head
    published_axes: str | None = "SAL"
    source = "www.synapse.org, project syn3193805 (BTCV), Abdomen/RawData.zip"

    def _find_cases(self, dataset: Dataset) -> CaseList:
        root = Path(dataset.root)
        images = file_cases(root / IMAGES, r"(?P<case>img.+?)\.nii(\.gz)?")
        labels = file_cases(root / LABELS, r"label(?P<case>.+?)\.nii(\.gz)?")
        labels = {f"img{number}": paths for number, paths in labels.items()}
        return pair(images, labels, lambda case: image_path(root, case))

    def _labels(self, dataset: Dataset) -> LabelMap:
        return LabelMap(ORGANS, IGNORED)

    def canonical(self, dataset: Dataset) -> CanonicalSplit:
        """TransUNet's 18 training and 12 test volumes."""
        return CanonicalSplit(tuple(map(case_id, TRAIN)), tuple(map(case_id, TEST)))

"""What an organ counts that is empty in the truth, in the prediction, or in both.

Where both masks have a voxel, all conventions agree. They differ by what the field's code makes of
the rest (docs/evaluation.md).
"""

import math
from dataclasses import dataclass

from pipeline.scoring.dice import NAN
from pipeline.scoring.measures import Measures

# scores in [0, 1]: the shares
SHARES = ("dice", "iou", "nsd_1mm", "nsd_2mm", "nsd_3mm")
DISTANCES = ("hd95_voxels", "hd95_mm", "hd_voxels", "hd_mm", "assd_mm")
VOLUME = "volume_difference_ml"
SCORES = (
    *("dice", "iou", "hd95_voxels", "hd95_mm", "hd_voxels", "hd_mm", "assd_mm"),
    *("nsd_1mm", "nsd_2mm", "nsd_3mm"),
    VOLUME,
)
# stands for the volume's diagonal in the unit of the distance
DIAGONAL = math.inf


@dataclass(frozen=True)
class Verdict:
    """What an empty pair counts; NaN: left out of the means.

    Attributes:
        share: for Dice, IoU and NSD, in [0, 1].
        distance: for HD95, HD and ASSD, >= 0, or DIAGONAL.
    """

    share: float
    distance: float


@dataclass(frozen=True)
class Convention:
    """One way to count.

    Attributes:
        missed: the organ is there and not predicted.
        invented: it is predicted and not there.
        absent: neither.
        words: the rule in one sentence, for reports.
    """

    missed: Verdict
    invented: Verdict
    absent: Verdict
    words: str

    def verdict(self, measures: Measures) -> Verdict | None:
        """For an empty pair; None where both masks have a voxel."""
        if measures.truth_voxels:
            return None if measures.predicted_voxels else self.missed
        return self.invented if measures.predicted_voxels else self.absent


CONVENTIONS = {
    "paper": Convention(
        missed=Verdict(0, 0),
        invented=Verdict(1, 0),
        absent=Verdict(0, 0),
        words=(
            "an organ that isn't predicted counts Dice 0 and HD95 0, one that is predicted but "
            "isn't there counts Dice 1 and HD95 0"
        ),
    ),
    "strict": Convention(
        missed=Verdict(0, DIAGONAL),
        invented=Verdict(0, NAN),
        absent=Verdict(NAN, NAN),
        words=(
            "an organ that is neither there nor predicted is left out, one that is predicted but "
            "isn't there counts Dice 0, one that is missed counts Dice 0 and, as HD95, the "
            "volume's diagonal"
        ),
    ),
    "nnunet": Convention(
        missed=Verdict(0, NAN),
        invented=Verdict(0, NAN),
        absent=Verdict(NAN, NAN),
        words=(
            "an organ that is neither there nor predicted is left out, one that is missed or "
            "predicted but isn't there counts Dice 0 and has no HD95"
        ),
    ),
    "both_empty_one": Convention(
        missed=Verdict(0, NAN),
        invented=Verdict(0, NAN),
        absent=Verdict(1, 0),
        words=(
            "an organ that is neither there nor predicted counts Dice 1 and HD95 0, one that is "
            "missed or predicted but isn't there counts Dice 0 and has no HD95"
        ),
    ),
}


def apply_convention(measures: Measures, convention: str) -> dict[str, float]:
    """The scores of one organ in one case, by the names in SCORES; NaN: left out of the means.

    The volume difference is predicted minus true, and left out where Dice is.

    Raises:
        ValueError: unknown convention.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: expected one of {list(CONVENTIONS)}, got {convention!r}")
    verdict = CONVENTIONS[convention].verdict(measures)
    scores = _measured(measures) if verdict is None else _counted(measures, verdict)
    difference = (measures.predicted_voxels - measures.truth_voxels) * measures.voxel_ml
    scores[VOLUME] = NAN if math.isnan(scores["dice"]) else difference
    return {name: scores[name] for name in SCORES}


def _measured(measures: Measures) -> dict[str, float]:
    sizes = measures.truth_voxels + measures.predicted_voxels
    shared = measures.shared_voxels
    overlap = {"dice": 2 * shared / sizes, "iou": shared / (sizes - shared)}
    return overlap | {
        name: getattr(measures, name) for name in (*SHARES, *DISTANCES) if name not in overlap
    }


def _counted(measures: Measures, verdict: Verdict) -> dict[str, float]:
    far = verdict.distance == DIAGONAL
    distances = {
        name: getattr(measures, f"diagonal_{name.rsplit('_', 1)[1]}") if far else verdict.distance
        for name in DISTANCES
    }
    return dict.fromkeys(SHARES, float(verdict.share)) | {k: float(v) for k, v in distances.items()}

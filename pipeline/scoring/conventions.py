"""What a score counts for an organ that is empty in the truth, in the prediction, or in both.

Where both masks have a voxel, all conventions agree. Where one is empty, published tables are made
by different rules (docs/evaluation.md).
"""

import math
from dataclasses import dataclass

from pipeline.scoring.dice import NAN
from pipeline.scoring.measures import Measures
from pipeline.scoring.scores import SCORES, Score

STRICT = "strict"  # the convention under which every error counts
# stands for the volume's diagonal in the unit of the distance
DIAGONAL = math.inf


@dataclass(frozen=True)
class Verdict:
    """What scores count for a pair with an empty mask; NaN: left out of the means.

    Attributes:
        overlap: for scores of this kind (Dice, IoU, NSD), in [0, 1].
        distance: for scores of this kind (HD95, HD, ASSD), >= 0, or DIAGONAL.
    """

    overlap: float
    distance: float


@dataclass(frozen=True)
class Convention:
    """The verdicts on the three ways in which a pair can have an empty mask.

    Attributes:
        missed: on an organ that the truth has and the prediction lacks.
        invented: on one that the prediction has and the truth lacks.
        absent: on one that neither has.
        words: the rule in one sentence, for reports.
    """

    missed: Verdict
    invented: Verdict
    absent: Verdict
    words: str

    def verdict(self, measures: Measures) -> Verdict | None:
        """What an empty mask counts; None where both masks have a voxel."""
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
    STRICT: Convention(
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

    Args:
        measures: of the organ.
        convention: one of CONVENTIONS.

    Raises:
        ValueError: unknown convention.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: expected one of {list(CONVENTIONS)}, got {convention!r}")
    verdict = CONVENTIONS[convention].verdict(measures)
    if verdict is None:
        return {name: measures.scores[name] for name in SCORES}
    return {name: _counted(score, measures, verdict) for name, score in SCORES.items()}


def _counted(score: Score, measures: Measures, verdict: Verdict) -> float:
    """What a score counts for a pair with an empty mask."""
    if score.kind == "overlap":
        return float(verdict.overlap)
    if score.kind == "distance":
        diagonals = {"voxels": measures.diagonal_voxels, "mm": measures.diagonal_mm}
        far = verdict.distance == DIAGONAL
        return diagonals[score.unit] if far else float(verdict.distance)
    return NAN if math.isnan(verdict.overlap) else measures.scores[score.name]

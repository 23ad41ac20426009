"""The table of scores: each one's column, title, unit, definition and formula.

All else that lists scores derives from this table: columns, means and intervals, the tables and
axes of terminal, report and figures, and what `hsam compare` offers. It is read without NumPy or
pandas, so that the command line can name the scores at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# What a score counts where a mask is empty follows from its kind (see `conventions`):
# overlap: in [0, 1], 1 is best; the convention says what an empty mask counts
# distance: >= 0, 0 is best, in voxels or mm; likewise
# size: computed for empty masks too, and left out of the means where overlaps are
Kind = Literal["overlap", "distance", "size"]

# Where a score is shown besides the full tables, which hold all:
# summary: terminal, metrics.json by organ, the report's tiles and its tables of organs, conventions
# comparison: runs or stages side by side, in `hsam compare`'s printed tables and in the report
# cases: the report's table of every case
# boxes: a box plot of `hsam figures`
View = Literal["summary", "comparison", "cases", "boxes"]

# share by which headers' rounding may move a distance: 1.0000001 mm is within 1 mm
ROUNDING = 1e-5


@dataclass(frozen=True)
class MaskSizes:
    """Sizes of one organ's true and predicted mask in one case.

    Attributes:
        truth_voxels, predicted_voxels: voxels of the two masks.
        shared_voxels: voxels of their intersection.
        voxel_ml: volume of a voxel.
    """

    truth_voxels: int
    predicted_voxels: int
    shared_voxels: int
    voxel_ml: float


@dataclass(frozen=True, eq=False)
class MaskPair(MaskSizes):
    """What scores are computed from.

    Attributes:
        voxels: for each surface voxel of either mask, the distance to the other mask's surface,
            (surface voxels of both,), where voxels are cubes of side 1; empty if a mask is.
        mm: the same in mm.
    """

    voxels: "NDArray[np.float64]"
    mm: "NDArray[np.float64]"


@dataclass(frozen=True)
class Score:
    """One row of the table.

    Attributes:
        name: its column in tables and its key in JSON, with the unit where there is one.
        title: what people call it.
        unit: "voxels", "mm" or "ml"; empty for a number without unit.
        digits: shown after the point.
        kind: decides what it counts where a mask is empty.
        definition: in words, for the report and the documentation.
        compute: its value. Overlaps and distances are computed where both masks have a voxel,
            sizes always; a division by zero means that the score is undefined.
        views: the short tables and figures that show it.
        tolerance_mm: a distance up to it counts as none; None: every distance counts.
    """

    name: str
    title: str
    unit: str
    digits: int
    kind: Kind
    definition: str
    compute: Callable[[MaskPair], float]
    views: tuple[View, ...] = ()
    tolerance_mm: float | None = None

    @property
    def label(self) -> str:
        """Title and unit, for headings and axes."""
        return f"{self.title}, {self.unit}" if self.unit else self.title

    def is_below(self, voxel_mm: float) -> bool:
        """Whether its tolerance is below the side of a voxel, so that one voxel off is wrong."""
        return self.tolerance_mm is not None and self.tolerance_mm * (1 + ROUNDING) < voxel_mm

    def marked(self, voxel_mm: float | None) -> "Score":
        """The same with a title that says so where its tolerance is below the voxel size.

        Args:
            voxel_mm: longest side of a voxel of the cases that are shown; None: not known.
        """
        if voxel_mm is None or not self.is_below(voxel_mm):
            return self
        return replace(self, title=f"{self.title} (below voxel size)")


def _percentile_95(distances: "NDArray[np.float64]") -> float:
    import numpy as np  # here, so that the table is read without it

    return float(np.percentile(distances, 95))


def _nsd(mm: int, *views: View) -> Score:
    """The normalised surface distance at a tolerance."""
    return Score(
        name=f"nsd_{mm}mm",
        title=f"NSD at {mm} mm",
        unit="",
        digits=3,
        kind="overlap",
        definition=f"share of the distances between the two surfaces within {mm} mm",
        compute=lambda pair: (pair.mm <= mm * (1 + ROUNDING)).mean(),
        views=views,
        tolerance_mm=mm,
    )


# name to score, in the order of all tables
SCORES = {
    score.name: score
    for score in (
        Score(
            name="dice",
            title="Dice",
            unit="",
            digits=3,
            kind="overlap",
            definition="twice the size of the masks' intersection over the sum of their sizes",
            compute=lambda pair: (
                2 * pair.shared_voxels / (pair.truth_voxels + pair.predicted_voxels)
            ),
            views=("summary", "comparison", "cases", "boxes"),
        ),
        Score(
            name="iou",
            title="IoU",
            unit="",
            digits=3,
            kind="overlap",
            definition="size of the masks' intersection over that of their union",
            compute=lambda pair: (
                pair.shared_voxels
                / (pair.truth_voxels + pair.predicted_voxels - pair.shared_voxels)
            ),
        ),
        Score(
            name="hd95_voxels",
            title="HD95",
            unit="voxels",
            digits=2,
            kind="distance",
            definition="95th percentile of the distances between the two surfaces",
            compute=lambda pair: _percentile_95(pair.voxels),
            views=("summary", "cases"),
        ),
        Score(
            name="hd95_mm",
            title="HD95",
            unit="mm",
            digits=2,
            kind="distance",
            definition="95th percentile of the distances between the two surfaces",
            compute=lambda pair: _percentile_95(pair.mm),
            views=("summary", "comparison", "cases", "boxes"),
        ),
        Score(
            name="hd_voxels",
            title="HD",
            unit="voxels",
            digits=2,
            kind="distance",
            definition="the largest distance between the two surfaces",
            compute=lambda pair: pair.voxels.max(),
        ),
        Score(
            name="hd_mm",
            title="HD",
            unit="mm",
            digits=2,
            kind="distance",
            definition="the largest distance between the two surfaces",
            compute=lambda pair: pair.mm.max(),
        ),
        Score(
            name="assd_mm",
            title="ASSD",
            unit="mm",
            digits=2,
            kind="distance",
            definition="mean of the distances between the two surfaces",
            compute=lambda pair: pair.mm.mean(),
            views=("cases",),
        ),
        _nsd(1),
        _nsd(2, "cases", "boxes"),
        _nsd(3),
        Score(
            name="volume_difference_ml",
            title="volume difference",
            unit="ml",
            digits=1,
            kind="size",
            definition="predicted minus true volume",
            compute=lambda pair: (pair.predicted_voxels - pair.truth_voxels) * pair.voxel_ml,
        ),
    )
}


def in_view(view: View, voxel_mm: float | None = None) -> list[Score]:
    """The scores that a short table or figure shows, in the table's order.

    Args:
        view: which one.
        voxel_mm: as for `Score.marked`.
    """
    return [score.marked(voxel_mm) for score in SCORES.values() if view in score.views]

"""A run's table of cases under every convention, from what it holds under one."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pipeline.scoring.conventions import CONVENTIONS, apply_convention
from pipeline.scoring.dice import NAN
from pipeline.scoring.measures import Measures
from pipeline.scoring.scores import SCORES


def under_every_convention(
    cases: pd.DataFrame, diagonals: Mapping[str, tuple[float, float]]
) -> pd.DataFrame:
    """The scores of each case and organ under each convention.

    Where both masks have a voxel all conventions agree; what an empty mask counts follows from the
    sizes of the masks and of the volume, so that nothing has to be measured again.

    Args:
        cases: a run's table `cases`, under any convention.
        diagonals: case to the length of its volume's diagonal, edge to edge: voxels, mm.

    Returns:
        `convention`, `case`, `organ` and every score, in the order of the conventions and then of
        the rows given; NaN for what the convention leaves out.

    Raises:
        KeyError: a case without a diagonal.
    """
    measured = [
        (str(row["case"]), str(row["organ"]), _measures(row, *diagonals[row["case"]]))
        for row in cases.to_dict("records")
    ]
    rows = [
        {"convention": name, "case": case, "organ": organ, **apply_convention(measures, name)}
        for name in CONVENTIONS
        for case, organ, measures in measured
    ]
    return pd.DataFrame(rows, columns=["convention", "case", "organ", *SCORES])


def _measures(row: Mapping[Any, Any], diagonal_voxels: float, diagonal_mm: float) -> Measures:
    """What was measured, as far as conventions ask for it."""
    truth, predicted = int(row["truth_voxels"]), int(row["predicted_voxels"])
    absent = not truth and not predicted  # no volume on either side, which some leave out
    scores = {
        name: 0.0 if absent and score.kind == "size" else float(row[name])
        for name, score in SCORES.items()
    }
    sides = (NAN, float(row.get("voxel_mm", NAN)))
    return Measures(truth, predicted, 0, NAN, diagonal_voxels, diagonal_mm, sides, scores)

"""Small scored runs that the tests of comparisons and figures share."""

from pathlib import Path

import numpy as np

from pipeline.core import files
from pipeline.scoring import tables
from pipeline.scoring.measures import Measures, measure
from tests.pipeline.masks import SPACING, blob

ORGANS = ["liver", "spleen"]
CASES = ["a", "b", "c", "d", "e", "f"]


def measured(shift: int, cases: list[str] = CASES) -> dict[str, dict[str, Measures]]:
    """Predictions that are the truth moved by `shift` voxels, an organ a case."""
    return {
        case: {
            organ: measure(mask, np.roll(mask, shift, axis=2), SPACING)
            for place, organ in enumerate(ORGANS)
            for mask in [blob(10 * CASES.index(case) + place) if case in CASES else blob(99)]
        }
        for case in cases
    }


def write_run(folder: Path, found: dict[str, dict[str, Measures]], convention="strict") -> Path:
    """A folder as `hsam score` writes it."""
    rows = tables.write_scores(folder, found, ORGANS, convention)
    about = {"cases": len(found), "convention": convention}
    files.write_json(folder / "metrics.json", tables.summary(rows, found, convention) | about)
    return folder

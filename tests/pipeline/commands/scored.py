"""Running `hsam score` on folders of labels, which the tests of label maps and of masks share."""

from pathlib import Path

import pandas as pd
import pytest

from pipeline.commands import score
from pipeline.core.errors import UserError


def scored(folders: dict[str, Path], **options) -> pd.DataFrame:
    """Score `folders` (truth, prediction, labels) into `scores` beside them; the table `cases`."""
    out = folders["truth"].parent / "scores"
    score.run(**folders, out=out, **options)
    return pd.read_csv(out / "cases.csv", dtype={"case": str}).set_index(["case", "organ"])


def problems(folders: dict[str, Path], **options) -> list[str]:
    """What scoring them is refused for; nothing is written."""
    with pytest.raises(UserError) as error:
        scored(folders, **options)
    assert not (folders["truth"].parent / "scores").exists()
    return error.value.problems

"""The test cases of a study, with the predictions of any two of its arms side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.core.errors import UserError
from pipeline.reporting.browser import Model, Source, packed, worst_first
from pipeline.reporting.page import place
from pipeline.reporting.pictures import PREDICTION, read_figure_data
from pipeline.scoring.dice import none_if_nan
from pipeline.scoring.runs import read_runs


def arm_cases(folders: Mapping[str, Path], prepared: Path, budget_mib: float) -> dict[str, Any]:
    """The case browser of a study's page, and the table that leads to it.

    Args:
        folders: arm to the evaluation that stands for it.
        prepared: folder of the volumes that all were evaluated on.
        budget_mib: size of all images and labels in the page, MiB.

    Returns:
        `browser`: as `browser.packed`; `arms`; `rows`: `case`, `place`, the `means` of its Dice and
        the `places` that show it alone, an arm each, the case that is worst on average first.

    Raises:
        UserError: runs that can't be shown side by side, or a prediction that isn't there.
    """
    runs = read_runs(list(folders.values()), list(folders))
    manifest = read_figure_data(prepared, runs).manifest
    models = [Model(f"arm-{number}", run.name, run.cases) for number, run in enumerate(runs)]
    cases = worst_first(pd.concat([run.cases for run in runs]), runs[0].case_ids)
    maps = {
        case: {
            model.layer: run.folder / PREDICTION / f"{case}.nii.gz"
            for model, run in zip(models, runs, strict=True)
        }
        for case in cases
    }
    if missing := [
        path for found in maps.values() for path in found.values() if not path.is_file()
    ]:
        raise UserError(
            f"{path}: there is no such file; run the evaluate stage again." for path in missing
        )
    source = Source(
        prepared,
        manifest,
        models,
        maps,
        judged=[model.layer for model in models],
    )
    means = [run.cases.groupby("case")["dice"].mean() for run in runs]
    return {
        "browser": packed(source, budget_mib),
        "arms": [model.name for model in models],
        "rows": [
            {
                "case": case,
                "place": place(case),
                "means": [none_if_nan(float(found[case])) for found in means],
                "places": [place(case, model=model.name, beside="none") for model in models],
            }
            for case in cases
        ],
    }

"""The test cases of a study, with the predictions of any two of its arms side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from pipeline.core.errors import UserError
from pipeline.reporting.browser import Model, Source, packed, worst_first
from pipeline.reporting.pictures import PREDICTION, read_figure_data
from pipeline.reporting.places import Dot, dot_plot, place
from pipeline.scoring.dice import none_if_nan
from pipeline.scoring.runs import read_runs


def arm_cases(
    folders: Mapping[str, Path], prepared: Path, budget_mib: float, reference: str | None
) -> dict[str, Any]:
    """The case browser of a study's page, and the table and the plots that lead to it.

    Args:
        folders: arm to the evaluation that stands for it.
        prepared: folder of the volumes that all were evaluated on.
        budget_mib: size of all images and labels in the page, MiB.
        reference: the arm that the others are compared with; None: there is none.

    Returns:
        `browser`: as `browser.packed`; `arms`; `rows`: `case`, `place`, the `means` of its Dice and
        the `places` that show it alone, an arm each, the case that is worst on average first;
        `dots`: a plot of each case's Dice, a row an arm; `differences`: one of each case's
        difference from the reference, None without it or without another arm.

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
    means = {run.name: run.cases.groupby("case")["dice"].mean() for run in runs}
    return {
        "browser": packed(source, budget_mib),
        "arms": [model.name for model in models],
        "rows": [
            {
                "case": case,
                "place": place(case),
                "means": [none_if_nan(float(found[case])) for found in means.values()],
                "places": [place(case, model=model.name, beside="none") for model in models],
            }
            for case in cases
        ],
        "dots": _dots(means, cases),
        "differences": _differences(means, cases, reference),
    }


def _dots(means: Mapping[str, pd.Series], cases: Sequence[str]) -> Markup:
    """A plot of each case's mean Dice, a row an arm; a dot leads to that case and arm alone."""
    rows = {
        arm: [
            Dot(
                float(found[case]),
                place(case, model=arm, beside="none"),
                f"{case}, {arm}: Dice {found[case]:.3f}",
            )
            for case in cases
        ]
        for arm, found in means.items()
    }
    title, label = "Dice of each test case", "mean Dice over organs"
    return dot_plot("arms-cases", title, rows, label, scale="fitted")


def _differences(
    means: Mapping[str, pd.Series], cases: Sequence[str], reference: str | None
) -> Markup | None:
    """A plot of each arm minus the reference, case by case; a dot leads to both side by side."""
    if reference is None or reference not in means or len(means) < 2:
        return None
    rows = {
        arm: [
            Dot(
                float(found[case] - means[reference][case]),
                place(case, model=arm, beside=reference),
                f"{case}: {arm} minus {reference} {found[case] - means[reference][case]:+.3f}",
            )
            for case in cases
        ]
        for arm, found in means.items()
        if arm != reference
    }
    title, label = f"Each arm minus {reference}, case by case", "difference in mean Dice"
    return dot_plot("arms-differences", title, rows, label, scale="difference")

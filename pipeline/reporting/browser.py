"""The page's case browser: which test cases and slices it has within its budget, worst first."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pipeline.core.console import LINE_SECONDS, steps
from pipeline.imaging.channels import many, recorded
from pipeline.imaging.colours import organ_colours
from pipeline.imaging.display import ends, sides
from pipeline.imaging.geometry import BEGINS
from pipeline.reporting.browser_case import pack, read_volume
from pipeline.reporting.inputs import ReportFolders, ReportInputs
from pipeline.reporting.pictures import case_pictures
from pipeline.scoring.disagreement import TWO_STAGES
from pipeline.scoring.review import FIRST
from pipeline.shards.case import ShardReader

MIB = 2**20
FEWEST_SLICES = 16  # of a case, before cases that are worse are shown in full
# names and bounds, HU, of presets beside the whole range
CT_WINDOWS = {"soft tissue": (-160, 240), "liver": (-15, 135), "bone": (-500, 1300)}
# where intensities have no unit: shares of the range
SHARES = {"darker half": (0.0, 0.5), "middle half": (0.25, 0.75), "brighter half": (0.5, 1.0)}
LEAST_INSIDE = 0.7  # share of a preset that the stored range holds


def browser(
    folders: ReportFolders, inputs: ReportInputs, budget_mib: float
) -> dict[str, Any] | None:
    """What the case browser shows; None without budget.

    The worst cases are there with every slice. Once the budget comes to its end, cases have fewer
    slices: first those where errors are largest, then evenly spread ones.

    Args:
        folders, inputs: of the report.
        budget_mib: size of all images and labels in the page, MiB.

    Returns:
        `about`: what holds for all cases, `cases`: one value a case, worst first, both for JSON;
        `note`: how much is shown, in words; `still`: a picture of the worst case's worst slice, for
        paper and browsers without scripts.
    """
    if budget_mib == 0:
        return None
    names = worst_first(inputs)
    review = inputs.review.head(FIRST)
    left = int(budget_mib * MIB)
    cases: list[dict[str, Any]] = []
    slices = 0  # so far
    with steps("report: slices", len(names), pause=LINE_SECONDS) as progress:
        for place, case in enumerate(names):
            volume = read_volume(folders, inputs, case)
            wanted = review.loc[review["case"] == case, "slice"].astype(int).to_list()
            # each later case keeps room for its first slices, at the size of those so far
            used = int(budget_mib * MIB) - left
            typical = used / slices if slices else 0
            reserved = int(typical * FEWEST_SLICES * (len(names) - place - 1))
            entry, size = pack(volume, len(inputs.manifest.class_names), wanted, left - reserved)
            left -= size
            slices += len(entry["slices"])
            cases.append(entry)
            progress.advance()
    worst = cases[0]["case"], [cases[0]["worst"]]
    return {
        "about": _about(folders, inputs, cases),
        "cases": cases,
        "note": f"{_note(cases)}{_channel_note(inputs)}",
        "still": case_pictures(folders, inputs, *worst)[0],
    }


def worst_first(inputs: ReportInputs) -> list[str]:
    """Test cases by their mean Dice, the lowest first, those without a score last."""
    means = inputs.cases.groupby("case")["dice"].mean()
    return sorted(inputs.split.cases["test"], key=lambda case: (_last(means.get(case)), case))


def _last(value: float | None) -> float:
    return np.inf if value is None or np.isnan(value) else value


def _about(
    folders: ReportFolders, inputs: ReportInputs, cases: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What holds for all cases: organs, layers, edges of the pictures, windows."""
    names, axes = inputs.manifest.class_names, inputs.manifest.axes
    layers = max((case["layers"] for case in cases), key=len)
    reader = ShardReader(folders.prepare / "shards" / f"{cases[0]['case']}.parquet")
    low, high = (many(edge)[0] for edge in reader.bounds)
    rules = inputs.model.get("intensity", {})
    kind = (rules[0] if isinstance(rules, list) else rules).get("kind")
    return {
        "organs": [
            {"name": name, "colour": colour}
            for name, colour in zip(names, organ_colours(names), strict=True)
        ],
        "layers": [name for name in ("truth", "prediction", *TWO_STAGES) if name in layers],
        "sides": sides(axes),
        "ends": ends(axes),
        "begins": BEGINS[axes[0]],
        "windows": windows((low, high), kind),
    }


def windows(bounds: tuple[float, float], kind: str | None) -> list[dict[str, Any]]:
    """Presets of the display: `name`, and `low` and `high` as shares of the stored range.

    Args:
        bounds: the values that are stored as 0 and 1.
        kind: of `prepare.intensity`; values of a "window" that reaches below 0 are HU.
    """
    low, high = bounds
    if kind != "window" or low >= 0:
        rows = [("whole range", 0.0, 1.0), *((name, *ends) for name, ends in SHARES.items())]
        return [{"name": name, "low": first, "high": last} for name, first, last in rows]
    result = [{"name": f"whole range, {low:g} to {high:g} HU", "low": 0.0, "high": 1.0}]
    for name, (first, last) in CT_WINDOWS.items():
        inside = min(last, high) - max(first, low)
        if inside >= LEAST_INSIDE * (last - first):
            shares = [round((value - low) / (high - low), 4) for value in (first, last)]
            text = f"{name}, {first} to {last} HU"
            result.append({"name": text, "low": shares[0], "high": shares[1]})
    return result


def _channel_note(inputs: ReportInputs) -> str:
    """Which of several channels is shown, in words."""
    names = list(recorded(inputs.manifest.preparation))
    if len(names) < 2:
        return ""
    return f" The pictures show {names[0]}, the first of the channels {', '.join(names)}."


def _note(cases: Sequence[Mapping[str, Any]]) -> str:
    """How many slices there are, in words."""
    there = sum(len(case["slices"]) for case in cases)
    every = sum(case["total"] for case in cases)
    if there == every:
        return f"All {every:,} slices of the {len(cases)} test cases are here."
    whole = sum(len(case["slices"]) == case["total"] for case in cases)
    return (
        f"{there:,} of {every:,} slices are here: {whole} of {len(cases)} cases in full, the worst "
        "ones, of the others those with the largest errors and evenly spread ones "
        "(report.budget_mib)."
    )

"""The page's case browser: which test cases and slices it has within its budget, worst first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core.console import LINE_SECONDS, steps
from pipeline.imaging.channels import many, recorded
from pipeline.imaging.colours import organ_colours
from pipeline.imaging.display import ends, sides
from pipeline.imaging.geometry import BEGINS
from pipeline.reporting.beside import BESIDE, THIS, Beside
from pipeline.reporting.browser_case import pack, read_volume
from pipeline.reporting.inputs import ReportFolders, ReportInputs
from pipeline.reporting.pictures import case_pictures
from pipeline.scoring.dice import none_if_nan
from pipeline.scoring.review import FIRST
from pipeline.scoring.uncertainty import TWO_STAGES
from pipeline.shards.case import ShardReader
from pipeline.shards.manifest import Manifest

MIB = 2**20
FEWEST_SLICES = 16  # of a case, before cases that are worse are shown in full
# names and bounds, HU, of presets beside the whole range
CT_WINDOWS = {"soft tissue": (-160, 240), "liver": (-15, 135), "bone": (-500, 1300)}
# where intensities have no unit: shares of the range
SHARES = {"darker half": (0.0, 0.5), "middle half": (0.25, 0.75), "brighter half": (0.5, 1.0)}
LEAST_INSIDE = 0.7  # share of a preset that the stored range holds


@dataclass(frozen=True)
class Model:
    """A model whose predictions are shown.

    Attributes:
        layer: its labels' name among the layers of a case.
        name: that readers see.
        cases: the table `cases` of its scores.
    """

    layer: str
    name: str
    cases: pd.DataFrame

    def dice(self, case: str, organs: Sequence[str]) -> list[float | None]:
        """Dice of each organ in a case; None where it doesn't count."""
        rows = self.cases[self.cases["case"] == case]
        known = dict(zip(rows["organ"], rows["dice"], strict=True))
        found = [float(known.get(organ, np.nan)) for organ in organs]
        return [none_if_nan(round(value, 4)) for value in found]


@dataclass(frozen=True)
class Source:
    """What a case browser is made of.

    Attributes:
        prepared, manifest: of the prepare stage.
        models: at least one; the first two are shown when the page opens.
        maps: case, in the order of the page, to layer to the NIfTI file of its labels.
        judged: layers whose errors say where to look first.
        wanted: case to slices to have first, after those with the largest errors.
    """

    prepared: Path
    manifest: Manifest
    models: Sequence[Model]
    maps: Mapping[str, Mapping[str, Path]]
    judged: Sequence[str]
    wanted: Mapping[str, Sequence[int]] = field(default_factory=dict)


def browser(
    folders: ReportFolders, inputs: ReportInputs, budget_mib: float, beside: Beside | None = None
) -> dict[str, Any] | None:
    """What the case browser of a run's page shows; None without budget.

    Args:
        folders, inputs: of the report.
        budget_mib: size of all images and labels in the page, MiB.
        beside: another run, whose predictions are shown beside; None: there is none.

    Returns:
        As `packed`.
    """
    if budget_mib == 0:
        return None
    maps = {case: folders.label_maps(case) for case in worst_first(inputs.cases, inputs.tested)}
    name = "prediction" if beside is None else THIS
    models = [Model("prediction", name, inputs.cases)]
    if beside is not None:
        models.append(Model(BESIDE, beside.name, beside.run.cases))
        maps = {case: found | {BESIDE: beside.label_map(case)} for case, found in maps.items()}
    review = inputs.review.head(FIRST)
    source = Source(
        folders.prepare,
        inputs.manifest,
        models,
        maps,
        judged=["prediction"],
        wanted={
            str(case): rows["slice"].astype(int).to_list() for case, rows in review.groupby("case")
        },
    )
    return packed(source, budget_mib)


def packed(source: Source, budget_mib: float) -> dict[str, Any]:
    """The slices that the budget has room for.

    The worst cases are there with every slice. Once the budget comes to its end, cases have fewer
    slices: first those where errors are largest, then evenly spread ones.

    Returns:
        `about`: what holds for all cases, `cases`: one value a case, worst first, both for JSON;
        `note`: how much is shown, in words; `still`: a picture of the worst case's worst slice, for
        paper and browsers without scripts.
    """
    organs = source.manifest.class_names
    left = int(budget_mib * MIB)
    cases: list[dict[str, Any]] = []
    slices = 0  # so far
    with steps("report: slices", len(source.maps), pause=LINE_SECONDS) as progress:
        for place, (case, maps) in enumerate(source.maps.items()):
            volume = read_volume(source.prepared, source.manifest.axes, case, maps, source.judged)
            # each later case keeps room for its first slices, at the size of those so far
            used = int(budget_mib * MIB) - left
            typical = used / slices if slices else 0
            reserved = int(typical * FEWEST_SLICES * (len(source.maps) - place - 1))
            wanted = source.wanted.get(case, [])
            entry, size = pack(volume, len(organs), wanted, left - reserved)
            entry["dice"] = [model.dice(case, organs) for model in source.models]
            left -= size
            slices += len(entry["slices"])
            cases.append(entry)
            progress.advance()
    return {
        "about": _about(source, cases),
        "cases": cases,
        "note": f"{_note(cases)}{_channel_note(source.manifest)}",
        "still": _still(source, cases[0]["case"], cases[0]["worst"]),
    }


def _still(source: Source, case: str, index: int) -> dict[str, Any]:
    maps = {model.name: source.maps[case][model.layer] for model in source.models}
    return case_pictures(source.prepared, source.manifest, case, [index], maps)[0]


def worst_first(scores: pd.DataFrame, tested: Sequence[str]) -> list[str]:
    """Test cases by their mean Dice, the lowest first, those without a score last.

    Args:
        scores: table `cases` of one or several models.
        tested: the cases.
    """
    means = scores.groupby("case")["dice"].mean()
    return sorted(tested, key=lambda case: (_last(means.get(case)), case))


def _last(value: float | None) -> float:
    return np.inf if value is None or np.isnan(value) else value


def _about(source: Source, cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What holds for all cases: organs, models, layers, edges of the pictures, windows."""
    names, axes = source.manifest.class_names, source.manifest.axes
    stages = [name for name in TWO_STAGES if any(name in case["layers"] for case in cases)]
    reader = ShardReader(source.prepared / "shards" / f"{cases[0]['case']}.parquet")
    low, high = (many(edge)[0] for edge in reader.bounds)
    rules = source.manifest.intensity
    kind = (rules[0] if isinstance(rules, list) else rules).get("kind")
    return {
        "organs": [
            {"name": name, "colour": colour}
            for name, colour in zip(names, organ_colours(names), strict=True)
        ],
        "models": [{"layer": model.layer, "name": model.name} for model in source.models],
        "layers": ["truth", "prediction", *stages],
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


def _channel_note(manifest: Manifest) -> str:
    """Which of several channels is shown, in words."""
    names = list(recorded(manifest.preparation))
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

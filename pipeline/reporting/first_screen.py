"""What a reader of a run's page sees first: what was run, how good, how sure, what to do next."""

import math
from collections.abc import Mapping
from typing import Any

from pipeline import datasets
from pipeline.core.console import duration
from pipeline.core.errors import few, together
from pipeline.imaging.channels import example
from pipeline.inference.titles import in_words
from pipeline.reporting.browser import worst_first
from pipeline.reporting.inputs import ReportInputs
from pipeline.scoring.bootstrap import FEWEST
from pipeline.scoring.conventions import STRICT
from pipeline.scoring.dice import none_if_nan
from pipeline.scoring.tables import OVERALL, cautions, tolerance_caution

SYNTHETIC = ("phantom",)  # data sets of made-up volumes
NOTHING = 0.0005  # Dice below which three digits show none
# with the folders that the engines and `hsam run` use
NEXT = (
    ("hsam predict SCAN --run results/train --out predictions --overlay", "label a scan"),
    ("hsam figures results/evaluate", "figures for a paper"),
    ("hsam compare results/evaluate OTHER", "hold another run against this one"),
)


def first_screen(inputs: ReportInputs) -> dict[str, Any]:
    """The values of the page's head.

    Args:
        inputs: what was read.

    Returns:
        `what`: one sentence; `cost`: length, time, device and day of the training; `interval`: of
        the mean Dice, [low, high] or None; `strict`: where another convention was chosen, `mean`
        and `interval` of that Dice with every error counted, or else None; `verdict`: sentences;
        `warnings`: those that matter most first; `next`: commands and what they do.
    """
    scan = example(inputs.manifest.preparation)
    convention = inputs.scores["convention"]
    return {
        "what": what(inputs),
        "cost": _cost(inputs),
        "interval": _interval(_overall(inputs, convention)),
        "strict": None if convention == STRICT else _strict(inputs),
        "verdict": verdict(inputs),
        "warnings": warnings(inputs),
        "next": [(command.replace("SCAN", scan), what_for) for command, what_for in NEXT],
    }


def what(inputs: ReportInputs) -> str:
    """What was run, in a sentence."""
    split = inputs.split
    tested = len(split.cases["test"])
    if inputs.imported:
        trained = inputs.origin
    else:
        counts = split.counts["train"]
        trained = f"trained on {counts['slices']:,} slices of {_cases(counts['subjects'])}"
    made_up = "; synthetic data" if inputs.manifest.name in SYNTHETIC else ""
    return f"{in_words(inputs.model)}: {trained}, tested on {_cases(tested)}{made_up}."


def _cost(inputs: ReportInputs) -> str:
    """Epochs, time, device and day of the training, in words; of an import nothing is known."""
    if inputs.imported:
        return ""
    epochs = len(inputs.history)
    length = f"Trained for {epochs:,} epoch" + ("" if epochs == 1 else "s")
    cost = inputs.costs.get("train")
    if cost is None:
        return f"{length}; time and device weren't recorded."
    date = "" if cost.date is None else f", {cost.date}"
    return f"{length} in {duration(cost.seconds)} on {cost.where}{date}."


def _overall(inputs: ReportInputs, convention: str) -> dict[str, Any]:
    """The row of the mean Dice over organs, under a convention."""
    table = inputs.organs
    chosen = table["convention"] == convention
    rows = table[chosen & (table["organ"] == OVERALL) & (table["score"] == "dice")]
    return rows.to_dict("records")[0]


def _strict(inputs: ReportInputs) -> dict[str, Any]:
    row = _overall(inputs, STRICT)
    return {"mean": none_if_nan(row["mean"]), "interval": _interval(row)}


def _interval(row: Mapping[str, Any]) -> list[float] | None:
    bounds = [row["low"], row["high"]]
    unknown = any(bound is None or math.isnan(bound) for bound in bounds)
    return None if unknown or row["cases"] < FEWEST else bounds


def verdict(inputs: ReportInputs) -> list[str]:
    """How sure the mean is, the weakest organ and case, and whether any organ is missed."""
    sentences = [_certainty(inputs)]
    means = inputs.cases.groupby("organ", sort=False)["dice"].mean().dropna()
    by_case = inputs.cases.groupby("case")["dice"].mean()
    worst = worst_first(inputs.cases, inputs.tested)[0]
    if len(means) > 1:
        organ = str(means.idxmin())
        sentences.append(f"The weakest organ is {organ}, Dice {means[organ]:.3f}.")
    if not math.isnan(by_case[worst]):
        sentences.append(f"The worst case is {worst}, Dice {by_case[worst]:.3f}.")
    there = inputs.cases[inputs.cases["truth_voxels"] > 0]
    lost = there[there["dice"] < NOTHING]
    if lost.empty:
        sentences.append("No organ is missed altogether in any case.")
    else:
        where = few([f"{row.organ} of {row.case}" for row in lost.itertuples()])
        sentences.append(f"Missed altogether (Dice 0.000): {where}.")
    return sentences


def _certainty(inputs: ReportInputs) -> str:
    row = _overall(inputs, inputs.scores["convention"])
    interval = _interval(row)
    cases = int(row["cases"])
    if interval is None:
        return (
            f"{_cases(cases).capitalize()} can't say how far the mean would move with others: "
            f"from {FEWEST} on it has an interval."
        )
    low, high = interval
    return (
        f"With other test cases of this kind the mean Dice would likely lie between {low:.3f} and "
        f"{high:.3f} (95% bootstrap interval over {_cases(cases)})."
    )


def warnings(inputs: ReportInputs) -> list[str]:
    """What a reader has to know before the numbers are believed, what matters most first."""
    found = []
    if inputs.manifest.name in SYNTHETIC:
        found.append("The volumes are synthetic: the scores say nothing about patients.")
    if inputs.other_split:
        found.append(
            "The model was trained on another split than the one that is scored here: whether it "
            "learned from any of these test cases isn't known."
        )
    # of scores that the first screen doesn't show, so it comes after what is of all of them
    grid = tolerance_caution(inputs.scores)
    found += [_sentence(text) for text in cautions(inputs.scores) if text != grid]
    if strange := inputs.scores.get("unlike_training"):
        found.append(
            f"{len(strange)} of {_cases(inputs.scores['cases'])}, or their labels, are unlike what "
            f"the model has learned from: {few(list(strange))}; the list of cases says how."
        )
    if remark := datasets.named(inputs.manifest.name).remark:
        found.append(remark)
    if grid is not None:
        found.append(_sentence(grid))
    return found + together({row.case: row.warnings for row in inputs.manifest})


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _cases(number: int) -> str:
    return f"{number:,} case" + ("" if number == 1 else "s")

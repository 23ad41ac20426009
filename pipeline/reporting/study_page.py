"""Makes the page of a study, or of a collection of studies, of what came out of its runs.

The same outputs of the runs give the same page, to the byte.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from pipeline import datasets
from pipeline.core.errors import UserError
from pipeline.imaging.colours import organ_colours
from pipeline.reporting import layout, study_arms, study_plots
from pipeline.reporting.drawing import named
from pipeline.reporting.study_cases import arm_cases
from pipeline.reporting.study_first import first_screen, run_what_is_left
from pipeline.reporting.study_pictures import galleries, shared_folder
from pipeline.reporting.study_plots import Band, Dots, Grown
from pipeline.reporting.study_table import main_table
from pipeline.studies import files, plan
from pipeline.studies.curve import Curve
from pipeline.studies.files import Collection, StudyFile
from pipeline.studies.outcomes import Outcome, arms, outcomes
from pipeline.studies.plan import Study
from pipeline.studies.sheets import sheets as all_sheets
from pipeline.studies.tables import Tables, tables
from pipeline.studies.verdict import is_synthetic

TEMPLATE, SCRIPTS = "study_page.html.j2", ("plots.js", "browser.js")
SYNTHETIC = (
    "Synthetic: these runs are on phantoms, small made-up volumes. Their numbers show that all of "
    "it works and how long it takes; they say nothing of any method, and there is no verdict."
)
# column of history.csv to title and label of a plot
CURVES = {
    "train_loss": ("Training loss", "loss"),
    "validation_dice": ("Validation Dice", "Dice"),
    "learning_rate": ("Learning rate", "learning rate"),
    "lambda": ("λ, weight of the coarse stage's loss", "λ"),
}
DETAILS = ("organs", "organs_hd95", "settings", "runs")  # sheets that are folded away
NUMBERS = {"models": "6", "predictions": "7", "stages": "8"}  # of the supplement's figures


@dataclass(frozen=True, eq=False)
class Part:
    """One study with what came out of it."""

    study: Study
    outcomes: Sequence[Outcome]
    tables: Tables


@dataclass(frozen=True, eq=False)
class Found:
    """What a page shows.

    Attributes:
        name: of the study or the collection.
        file: its content.
        on: what it is run on.
        parts: the studies.
    """

    name: str
    file: StudyFile | Collection
    on: tuple[str, ...]
    parts: tuple[Part, ...]

    @property
    def is_collection(self) -> bool:
        """Whether there may be several studies."""
        return isinstance(self.file, Collection)


def read(name: str, on: tuple[str, ...], results: Path) -> Found:
    """A study, or the studies of a collection, with what came out of its runs.

    Args:
        name: of the study or the collection.
        on: what it is run on.
        results: folder of the stages' outputs.

    Raises:
        UserError: no such study, no run is finished yet, or a finished one's files are damaged.
    """
    parts = []
    for study in plan.load(name, on):
        found = outcomes([study], results)
        parts.append(Part(study, found, tables(study, found)))
    if not any(outcome.done for part in parts for outcome in part.outcomes):
        argument = f" --config on={','.join(on)}" if on else ""
        raise UserError(
            f"{name}: none of its runs is finished in {results}; run "
            f"snakemake --cores all{argument} -- reports/{name}.html"
        )
    return Found(name, files.read(name), on, tuple(parts))


def render(found: Found) -> str:
    """The page's HTML."""
    synthetic = any(is_synthetic(part.study) for part in found.parts)
    return layout.render(
        TEMPLATE,
        {
            "title": found.file.title,
            "question": found.file.question,
            "synthetic": SYNTHETIC if synthetic else None,
            "on": list(found.on),
            "collection": found.is_collection,
            "studies": [_study(part, alone=not found.is_collection) for part in found.parts],
            "next": _left(found),
        },
        SCRIPTS,
    )


def _left(found: Found) -> list[tuple[str, str]]:
    """The command that does what is left of a collection, where anything is."""
    every = [outcome for part in found.parts for outcome in part.outcomes]
    left = sum(not outcome.done for outcome in every)
    if not left or not found.is_collection:
        return []
    return [run_what_is_left(found.name, found.on, left, len(every))]


def _study(part: Part, *, alone: bool) -> dict[str, Any]:
    """One study's section; alone on its page it has a case browser."""
    study, found = part.study, part.outcomes
    finished = {arm: [o for o in every if o.done] for arm, every in arms(found).items()}
    started = any(finished.values())
    sheets = {sheet.name: sheet for sheet in all_sheets(part.tables)}
    main = main_table(part.tables) if started else None
    return {
        "name": study.name,
        "title": study.file.title,
        "question": study.file.question,
        "what": _what(study, found),
        "state": _state(found),
        "started": started,
        "first": first_screen(part.tables, alone=alone) if started else None,
        "spent": study_arms.spent(finished),
        "common": study_arms.common(found),
        "main": main,
        "dots": _dots(part.tables) if started else None,
        "reference": study.file.reference,
        "comparisons": sheets.get("comparisons"),
        "curve": _curve(study.name, part.tables),
        "curve_sheet": sheets.get("curve"),
        "figures": _figures(study, finished) if started else None,
        "cases": _cases(finished, study.file.reference) if started and alone else None,
        "curves": _curves(study.name, finished),
        "costs": study_arms.costs(finished) if started else None,
        "details": [sheets[name] for name in DETAILS if name in sheets],
    }


def _dots(tables: Tables) -> Markup:
    """A plot of every run's mean Dice, a row an arm."""
    rows = {}
    for row in tables.arms:
        if row["kind"] == "arm" and row["runs"]:
            runs = [run for run in tables.runs if run["arm"] == row["row"]]
            rows[row["row"]] = Dots(
                {run["run"]: run["dice"] for run in runs if run["dice"] is not None},
                row["dice_mean"],
                row["dice_low"],
                row["dice_high"],
                None if is_synthetic(tables.study) else row["dice_published"],
            )
    name = f"{tables.study.name}-runs"
    return Markup(named(study_plots.arm_plot(name, rows, "mean Dice, %"), "Dice of every run"))


def _curve(name: str, tables: Tables) -> Markup | None:
    """A plot of Dice against the labels, with the laws that fit; None without points."""
    curves = tables.curves
    if curves is None or not any(curve.points for curve in curves.each):
        return None
    drawn = [_grown(curve, tables.runs) for curve in curves.each if curve.points]
    svg = study_plots.labels_plot(f"{name}-curve", drawn, "mean Dice, %", curves.along)
    return Markup(named(svg, "Dice along the labels"))


def _grown(curve: Curve, runs: Sequence[Mapping[str, Any]]) -> Grown:
    """What the plot shows of a curve: its arms' runs, and the law."""
    places = {point.arm: point.x for point in curve.points}
    shown = [run for run in runs if run["arm"] in places and run["dice"] is not None]
    dots = [places[run["arm"]] for run in shown], [run["dice"] for run in shown]
    if curve.law is None:
        return Grown(curve.of, *dots)
    furthest = curve.points[-1]
    x = [float(value) for value in np.geomspace(curve.points[0].x, 2 * furthest.x, 60)]
    ahead = Dots({}, *(_known(v) for v in (furthest.at_twice, furthest.low, furthest.high)))
    return Grown(curve.of, *dots, (x, [curve.law.at(value) for value in x]), ahead, 2 * furthest.x)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _what(study: Study, found: Sequence[Outcome]) -> str:
    """Arms, draws, seeds, and how many runs are finished, in words."""
    draws, seeds = {o.run.draw for o in found}, {o.run.seed for o in found}
    data = ", ".join(dict.fromkeys(datasets.title(o.run.params.dataset) for o in found))
    folds = f", {study.folds} folds, each case tested in one" if study.folds else ""
    return (
        f"On {data}: {_count(len(study.file.arms), 'arm')}, {_count(len(draws), 'draw')} of "
        f"slices, {_count(len(seeds), 'seed')}{folds}; {_state(found)}."
        f"{_learned(found)}"
    )


def _state(found: Sequence[Outcome]) -> str:
    """How many runs there are and are finished, in words."""
    done = sum(outcome.done for outcome in found)
    state = "all finished" if done == len(found) else f"{done} finished"
    return f"{_count(len(found), 'run')}, {state}"


def _learned(found: Sequence[Outcome]) -> str:
    """What the finished runs were trained and tested on, where it is the same for all."""
    facts = [outcome.facts for outcome in found if outcome.facts is not None]
    amounts = {(f.train_slices, f.train_subjects, f.test_cases) for f in facts}
    if len(amounts) != 1 or any(outcome.run.fold is not None for outcome in found):
        return ""
    slices, subjects, tested = amounts.pop()
    return (
        f" Each is trained on {_count(slices, 'slice')} of {_count(subjects, 'case')} and tested "
        f"on {_count(tested, 'other case')}."
    )


def _curves(name: str, finished: Mapping[str, Sequence[Outcome]]) -> list[dict[str, Any]]:
    """A plot for each of CURVES that any arm has values of."""
    plots = []
    for column, (title, label) in CURVES.items():
        bands = {arm: _band([o.history for o in runs], column) for arm, runs in finished.items()}
        shown = {arm: band for arm, band in bands.items() if band is not None}
        if shown:
            svg = study_plots.learning_plot(f"{name}-{column}", shown, label)
            plots.append({"title": title, "svg": Markup(named(svg, title))})
    return plots


def _band(histories: Sequence[pd.DataFrame], column: str) -> Band | None:
    """Mean and range over the runs, of the epochs that any has a value of; None without any."""
    values = [
        history.set_index("epoch")[column].dropna() for history in histories if column in history
    ]
    table = pd.concat(values, axis=1).sort_index() if values else pd.DataFrame()
    if table.empty:
        return None
    return Band(
        [float(epoch) for epoch in table.index],
        *(getattr(table, name)(axis=1).to_list() for name in ("mean", "min", "max")),
    )


def _figures(study: Study, finished: Mapping[str, Sequence[Outcome]]) -> dict[str, Any]:
    """Figures 6 to 8 of one run of each arm; a sentence where they can't be drawn."""
    if not study.file.figures:
        return {"note": "", "galleries": [], "organs": []}
    chosen = same_runs(finished)
    note = _which(finished, chosen)
    try:
        prepared = shared_folder([o.folders["prepare"] for o in chosen.values()])
        folders = {arm: o.folders["evaluate"] for arm, o in chosen.items()}
        drawn = galleries(study.file.figures, folders, prepared, study.file.reference)
    except UserError as error:
        return {"note": " ".join(error.problems), "galleries": [], "organs": []}
    organs = next(iter(chosen.values())).organs
    return {
        "note": note,
        "galleries": [gallery | {"number": NUMBERS[gallery["kind"]]} for gallery in drawn],
        "organs": list(zip(organs, organ_colours(organs), strict=True)),
    }


def _which(finished: Mapping[str, Sequence[Outcome]], chosen: Mapping[str, Outcome]) -> str:
    """Which runs stand for their arms, in words."""
    run = next(iter(chosen.values())).run
    fold = "" if run.fold is None else f", tested on fold {run.fold}"
    note = f"Each arm's run of draw {run.draw} and seed {run.seed}{fold}, whatever it scored."
    if absent := [arm for arm in finished if arm not in chosen]:
        note += f" Not there, since that run isn't finished: {', '.join(absent)}."
    return note


def _cases(
    finished: Mapping[str, Sequence[Outcome]], reference: str | None
) -> dict[str, Any] | None:
    """Every test case with the predictions of any two arms, of one run each; a sentence where they
    can't be shown, None where no browser is asked for.
    """
    chosen = same_runs(finished)
    first = next(iter(chosen.values()))
    budget = first.run.params.report.budget_mib
    if budget == 0:
        return None
    try:
        prepared = shared_folder([o.folders["prepare"] for o in chosen.values()])
        folders = {arm: o.folders["evaluate"] for arm, o in chosen.items()}
        shown = arm_cases(folders, prepared, budget, reference)
    except UserError as error:
        return {"note": " ".join(error.problems), "browser": None}
    return {"note": _which(finished, chosen), **shown}


def same_runs(finished: Mapping[str, Sequence[Outcome]]) -> dict[str, Outcome]:
    """A run of each arm, all of one draw, seed and fold: the first that the most have finished."""

    def key(outcome: Outcome) -> tuple[int, int, int]:
        return outcome.run.draw, outcome.run.seed, outcome.run.fold or 0

    keys = sorted({key(o) for runs in finished.values() for o in runs})

    def of(wanted: tuple[int, int, int]) -> dict[str, Outcome]:
        return {arm: o for arm, runs in finished.items() for o in runs if key(o) == wanted}

    return max(map(of, keys), key=len)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")

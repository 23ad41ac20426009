"""Makes the report's sentences, numbers and plots, as its template needs them, of what was read."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd
from markupsafe import Markup

from hsam.weights.record import pretraining
from pipeline.core.console import duration
from pipeline.core.cost import Cost
from pipeline.core.errors import together
from pipeline.core.params.dotted import flat
from pipeline.imaging.colours import organ_colours
from pipeline.imaging.geometry import BEGINS
from pipeline.inference.titles import model_title
from pipeline.reporting import drawing, trial_plots
from pipeline.reporting.beside import THIS, Beside
from pipeline.reporting.browser import worst_first
from pipeline.reporting.first_screen import first_screen
from pipeline.reporting.inputs import ReportInputs
from pipeline.reporting.places import Dot, dot_plot, place
from pipeline.reporting.recorded import searched_space
from pipeline.scoring import calibration
from pipeline.scoring.bootstrap import FEWEST
from pipeline.scoring.conventions import CONVENTIONS
from pipeline.scoring.dice import none_if_nan
from pipeline.scoring.review import FIRST, sentence
from pipeline.scoring.scores import SCORES, Score, in_view
from pipeline.scoring.significance import SIGNIFICANT, smallest_p
from pipeline.scoring.tables import OVERALL, voxel_mm

# evaluate.stage in words
ONE_STAGE = "the answer of a model of one stage"
LOGITS = {
    "mean": "the mean of both decoders",
    "coarse": "the coarse decoder alone",
    "fine": "the fine decoder alone",
}
# in the table of costs
STAGE_WORK = {
    "prepare": "preparing, case after case",
    "split": "split",
    "search": "search, all trials",
    "train": "training",
    "evaluate": "evaluation",
}
# plot to its title and its lines: column of history.csv to label
CURVES = {
    "loss": (
        "Loss",
        {"train_loss": "total", "train_loss_coarse": "coarse", "train_loss_fine": "fine"},
    ),
    "validation": ("Validation Dice", {"validation_dice": "validation Dice"}),
    "rate": ("Learning rate", {"learning_rate": "learning rate"}),
    "lambda": ("λ, weight of the coarse stage's loss", {"lambda": "λ"}),
}


def page(
    inputs: ReportInputs,
    browser: Mapping[str, Any] | None = None,
    data: str | None = None,
    beside: Beside | None = None,
) -> dict[str, Any]:
    """The template's values, except the pictures and the style sheet.

    Args:
        inputs: what was read.
        browser: of `browser.browser`; places lead to it. None: the page has none.
        data: what people call the data set; None: its name.
        beside: another run to hold against this one; None: there is none.
    """
    scores = inputs.scores
    voxel = voxel_mm(scores)
    every = [score.marked(voxel) for score in SCORES.values()]
    return {
        "model": model_title(inputs.model["config"]["model"]),
        "first": first_screen(inputs),
        "data_set": data or inputs.manifest.name,
        "test_cases": scores["cases"],
        "overall": _means(scores),
        "sentences": [_data_sentence(inputs), *_pretraining(inputs), _scoring_sentence(inputs)],
        "split_hash": scores["split"],
        "organs": _organs(inputs),
        "fewest": FEWEST,
        "scores": every,
        "views": {view: in_view(view, voxel) for view in ("summary", "comparison", "cases")},
        "definitions": {
            "summary": _definitions(in_view("summary", voxel)),
            "all": _definitions(every),
        },
        "conventions": _conventions(inputs),
        "stages": _stages(inputs),
        "review": _review(inputs),
        "predicted_dice": _predicted_dice(inputs),
        "browser": browser,
        "beside": None if beside is None else _beside(inputs, beside),
        "by_case": _by_case(inputs, beside),
        "unlike": together(scores.get("unlike_training", {})),
        "strip": _strip(inputs, linked=browser is not None),
        "cases": [
            row | {"place": place(row["case"], organ=row["organ"])} for row in _rows(inputs.cases)
        ],
        "training_note": _training_note(inputs),
        "curves": _curves(inputs.history),
        "search": _search(inputs),
        "costs": _costs(inputs),
        "parameters": _parameters(inputs.provenance),
        "provenance": _provenance(inputs.provenance),
    }


def _data_sentence(inputs: ReportInputs) -> str:
    """What the model was trained, validated and scored on."""

    def amount(role: str) -> str:
        counts = inputs.split.counts[role]
        return f"{_count(counts['slices'], 'slice')} of {_count(counts['subjects'], 'case')}"

    if inputs.imported:
        cases = _count(len(inputs.split.cases["test"]), "case")
        return (
            f"{inputs.origin.capitalize()}, scored on {cases}; "
            "whether it was trained on any of them isn't known here."
        )
    validated = f", validated on {amount('validation')}" if inputs.split.cases["validation"] else ""
    tested = _count(len(inputs.split.cases["test"]), "other case")
    return f"Trained on {amount('train')}{validated}, scored on {tested}."


def _pretraining(inputs: ReportInputs) -> list[str]:
    """What the encoder had been trained on before, where it had been."""
    before = pretraining(inputs.model)
    return [] if before is None else [f"Its encoder was pretrained on {before['trained_on']}."]


def _scoring_sentence(inputs: ReportInputs) -> str:
    """Which stage is scored and how empty masks count."""
    scores = inputs.scores
    words = CONVENTIONS[scores["convention"]].words
    scored = LOGITS[scores["stage"]] if "stages" in scores else ONE_STAGE
    return f"Scored is {scored}, with convention “{scores['convention']}”: {words}."


def _organs(inputs: ReportInputs) -> list[dict[str, Any]]:
    """Each organ, and last the mean over them, under the chosen convention."""
    chosen = inputs.organs[inputs.organs["convention"] == inputs.scores["convention"]]
    names = inputs.manifest.class_names
    values = _case_values(inputs)
    return [
        {
            "name": name,
            "colour": colour,
            **_summaries(chosen[chosen["organ"] == name], values[name]),
        }
        for name, colour in zip([*names, OVERALL], [*organ_colours(names), None], strict=True)
    ]


def _case_values(inputs: ReportInputs) -> dict[str, dict[str, list[float]]]:
    """Organ, and mean over organs, to score to the values of the cases that count."""
    by_organ = {name: rows for name, rows in inputs.cases.groupby("organ", sort=False)}
    scores = list(SCORES)
    by_organ[OVERALL] = inputs.cases.groupby("case", sort=False)[scores].mean()
    nothing = inputs.cases.iloc[:0]
    return {
        name: {score: by_organ.get(name, nothing)[score].dropna().to_list() for score in scores}
        for name in [*inputs.manifest.class_names, OVERALL]
    }


def _summaries(rows: pd.DataFrame, values: Mapping[str, list[float]]) -> dict[str, Any]:
    """Score to mean, sd, low, high, cases and, of cases too few for an interval, the values."""
    summaries = {}
    for row in rows.to_dict("records"):
        cases = int(row["cases"])
        few = cases < FEWEST
        statistics = {key: none_if_nan(row[key]) for key in ("mean", "sd", "low", "high")}
        summaries[row["score"]] = statistics | {
            "cases": cases,
            "values": sorted(values[row["score"]]) if few else [],
        }
        if few:  # tables of earlier versions have bounds there
            summaries[row["score"]] |= {"low": None, "high": None}
    return summaries


def _means(entries: Mapping[str, Any]) -> dict[str, float | None]:
    """The summary's scores and their means over organs; None where no case counts."""
    return {score.name: entries.get(f"mean_{score.name}") for score in in_view("summary")}


def _definitions(scores: Iterable[Score]) -> str:
    """What the scores mean, each title once, as one sentence."""
    by_title = {score.title: score.definition for score in scores}
    return "; ".join(f"{title}: {definition}" for title, definition in by_title.items()) + "."


def _conventions(inputs: ReportInputs) -> dict[str, Any]:
    """All conventions side by side, and on how many pairs of case and organ they differ."""
    pairs, headline = inputs.scores["pairs"], CONVENTIONS[inputs.scores["convention"]]
    kinds = ("missed", "invented", "absent")
    rows = []
    for name, convention in CONVENTIONS.items():
        # repr makes NaN equal NaN
        differing = sum(
            pairs[kind]
            for kind in kinds
            if repr(getattr(convention, kind)) != repr(getattr(headline, kind))
        )
        rows.append(
            {
                "name": name,
                "words": convention.words,
                "headline": convention is headline,
                "differing": differing,
                "means": _means(inputs.scores["conventions"][name]),
            }
        )
    return {"rows": rows, "note": _pairs_note(pairs)}


def _pairs_note(pairs: Mapping[str, int]) -> str:
    """On how many pairs of case and organ the conventions differ, in words."""
    empty = pairs["missed"] + pairs["invented"] + pairs["absent"]
    if not empty:
        return "They agree here: every organ is there and predicted in every case."
    return (
        f"They differ on {empty} of {_count(pairs['all'], 'pair')} of case and organ: "
        f"{pairs['missed']} where the organ is missed, {pairs['invented']} where it is predicted "
        f"but isn't there, {pairs['absent']} where it is neither there nor predicted."
    )


def _stages(inputs: ReportInputs) -> dict[str, Any] | None:
    """Scores of both stages and of their mean, and where they disagree; None if there is one."""
    if "stages" not in inputs.scores:
        return None
    names = list(inputs.scores["stages"])
    table = inputs.stages[inputs.stages["convention"] == inputs.scores["convention"]]
    means = table.set_index(["stage", "organ", "score"])["mean"].to_dict()
    rows = [
        {
            "name": organ,
            "means": {
                score.name: [none_if_nan(means[stage, organ, score.name]) for stage in names]
                for score in in_view("comparison")
            },
        }
        for organ in [*inputs.manifest.class_names, OVERALL]
    ]
    return {"names": names, "rows": rows}


def _review(inputs: ReportInputs) -> dict[str, Any]:
    """The review list's first rows, and how well it finds what is wrong."""
    return {
        "rows": [
            row | {"place": place(row["case"], slice=row["slice"])}
            for row in _rows(inputs.review.head(FIRST))
        ],
        "begins": BEGINS[inputs.manifest.axes[0]],
        "note": _review_note(inputs.scores["review"]),
    }


def _review_note(review: Mapping[str, Any]) -> str:
    """What the list is ordered by and how much of the true error it finds, in words."""
    text = "Ordered by the area that is expected to be wrong by the model's own probabilities."
    if "found_in_first" in review:
        found = sentence(review)
        text += (
            f" {found[0].upper()}{found[1:]}. They are {review['looked_at']:.1%} of the "
            f"{review['pairs']:,} pairs of organ and slice."
        )
    if "spearman" in review:
        text += (
            " Spearman's rank correlation of expected and true error area is "
            f"{review['spearman']:.2f}: the closer to 1, the better the list finds what is wrong."
        )
    return text


def _predicted_dice(inputs: ReportInputs) -> dict[str, Any] | None:
    """How far predicted Dice can be believed; None for an evaluation that didn't try."""
    about = inputs.scores.get("predicted_dice")
    if about is None:
        return None
    said = inputs.predicted_dice.dropna(subset="predicted")
    lowest = said.sort_values("predicted", kind="stable").head(FIRST)
    note = calibration.sentence(about)
    return {
        "note": f"{note[0].upper()}{note[1:]}.",
        "rows": [
            row
            | {
                "place": place(row["case"], organ=row["organ"]),
                "held": row["low"] <= row["dice"] <= row["high"],
            }
            for row in _rows(lowest)
        ],
    }


def _strip(inputs: ReportInputs, *, linked: bool) -> Markup:
    """A plot of every case's Dice, a row an organ; if linked, dots lead to the case browser."""
    rows = {
        name: [
            Dot(row.dice, place(row.case, organ=name), f"{row.case}, {name}: Dice {row.dice:.3f}")
            for row in inputs.cases[inputs.cases["organ"] == name].itertuples()
        ]
        for name in inputs.manifest.class_names
    }
    title, label = "Dice of each test case", SCORES["dice"].label
    return dot_plot("strip", title, rows, label, linked=linked)


def _beside(inputs: ReportInputs, beside: Beside) -> dict[str, Any]:
    """Dice of each organ, and of the mean over them, of this run and of the one beside."""
    means = [
        table.groupby("organ")["dice"].mean().to_dict()
        for table in (inputs.cases, beside.run.cases)
    ]
    for found in means:
        found[OVERALL] = _mean(found.values())
    organs = inputs.manifest.class_names
    colours = dict(zip(organs, organ_colours(organs), strict=True))
    cases = len(beside.run.case_ids)
    note = (
        f"{beside.name} minus this model, case by case; p of Wilcoxon's signed-rank test over "
        f"{_count(cases, 'case')}, with Holm's correction over the organs."
    )
    least = smallest_p(cases)
    if least >= SIGNIFICANT:
        note += f" So few cases can't show a difference: no p is below {least:.2g}."
    return {
        "name": beside.name,
        "note": note,
        "rows": [
            {
                "name": row["organ"],
                "colour": colours.get(row["organ"]),
                "this": none_if_nan(means[0].get(row["organ"], math.nan)),
                "other": none_if_nan(means[1].get(row["organ"], math.nan)),
                "difference": row["difference"],
                "low": row["low"] if row["cases"] >= FEWEST else None,
                "high": row["high"] if row["cases"] >= FEWEST else None,
                "values": row["values"],
                "p": row["p_holm"],
            }
            for row in beside.compared
        ],
    }


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def _by_case(inputs: ReportInputs, beside: Beside | None) -> list[dict[str, Any]]:
    """Each case, the worst first: mean Dice, of the run beside too, and Dice of each organ, with
    their places; `places`: of this run, of the one beside, of both."""
    values = {(row["case"], row["organ"]): row["dice"] for row in _rows(inputs.cases)}
    means = inputs.cases.groupby("case")["dice"].mean()
    others = {} if beside is None else beside.run.cases.groupby("case")["dice"].mean()
    return [
        {
            "case": case,
            "place": place(case),
            "mean": none_if_nan(float(means[case])),
            "other": none_if_nan(float(others.get(case, math.nan))),
            "places": _places(case, beside),
            "organs": [
                {"place": place(case, organ=name), "dice": values.get((case, name))}
                for name in inputs.manifest.class_names
            ],
        }
        for case in worst_first(inputs.cases, inputs.tested)
    ]


def _places(case: str, beside: Beside | None) -> dict[str, str]:
    """Where the case browser shows a case with this run, and with the one beside or both."""
    if beside is None:
        return {"this": place(case)}
    return {
        "this": place(case, model=THIS, beside="none"),
        "other": place(case, model=beside.name, beside="none"),
        "both": place(case, model=THIS, beside=beside.name),
    }


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table's rows, with None in place of NaN."""
    return [
        {key: none_if_nan(cell) if isinstance(cell, float) else cell for key, cell in row.items()}
        for row in table.to_dict("records")
    ]


def _training_note(inputs: ReportInputs) -> str:
    """Length, size and outcome of the training, in words."""
    if inputs.imported:
        return (
            f"Imported with {inputs.model['trainable_parameters']:,} trained parameters; nothing "
            "is recorded of the training. Parameters of training below are those given here."
        )
    history = inputs.history
    first, last = history.iloc[0], history.iloc[-1]
    parts = [
        f"{_count(len(history), 'epoch')}, {_count(int(last['iteration']), 'step')}, "
        f"{inputs.model['trainable_parameters']:,} trained parameters; "
        f"loss {first['train_loss']:.3f} → {last['train_loss']:.3f}"
    ]
    validated = history["validation_dice"].dropna()
    if len(validated):
        best = validated.idxmax()
        parts.append(
            f"best validation Dice {validated[best]:.3f} at epoch {int(history['epoch'][best])}"
        )
    return "; ".join(parts) + "."


def _curves(history: pd.DataFrame) -> list[dict[str, Any]]:
    """A plot for each of CURVES that the history has values of."""
    plots = []
    for name, (title, columns) in CURVES.items():
        lines = {
            label: history[column].to_list()
            for column, label in columns.items()
            if history[column].notna().any()
        }
        if not lines:
            continue
        svg = drawing.line_plot(
            name,
            history["epoch"].to_list(),
            lines,
            label=next(iter(lines)) if len(lines) == 1 else "loss",
            markers=name == "validation",
        )
        plots.append({"title": title, "svg": Markup(drawing.named(svg, title))})
    return plots


def _costs(inputs: ReportInputs) -> list[dict[str, str]]:
    """Stages whose cost is known, in their order, each in words; the search's from its trials."""
    costs = dict(inputs.costs)
    trials = inputs.trials
    if len(trials) and "seconds" in trials and "device" in trials:
        devices = ", ".join(sorted(set(trials["device"].dropna())))
        costs["search"] = Cost(None, float(trials["seconds"].sum()), devices, 1, None)
    return [
        {
            "stage": name,
            "time": duration(cost.seconds),
            "seconds": str(cost.seconds),
            "device": cost.where,
            "memory": "" if cost.peak_memory_mib is None else f"{cost.peak_memory_mib:,} MiB",
            "date": cost.date or "",
        }
        for stage, name in STAGE_WORK.items()
        if (cost := costs.get(stage)) is not None
    ]


def _search(inputs: ReportInputs) -> dict[str, Any]:
    """The trials as a table, a plot and a sentence; only a sentence if there was no search."""
    trials = inputs.trials
    if trials.empty:
        if inputs.imported:
            return {"note": "No search was run (the model was imported).", "rows": []}
        note = "No search was run: training took the parameters below."
        return {"note": note, "rows": []}
    complete = trials[trials["state"] == "complete"]
    best = complete["value"].idxmax() if len(complete) else None
    tuned = flat(inputs.best.get("train", {}))
    values = ", ".join(f"{key} {_short(value)}" for key, value in tuned.items())
    outcome = f"the best one's {values}" if values else "none of them"
    searched = searched_space(inputs.provenance.get("search", {}))
    known = {key: given for key, given in searched.items() if key in trials}
    return {
        "note": (
            f"{_counted(trials)}, valued by Dice on the validation slices; training took {outcome}."
            f"{_default(trials, best)} No test case had a part in the choice, and the scores above "
            "are those of the tuned parameters."
        ),
        "plots": [
            {"title": title, "svg": Markup(drawing.named(svg, title))}
            for title, svg in trial_plots.plots(trials, known, inputs.importances)
        ],
        "columns": [column.replace("_", " ") for column in trials.columns],
        "rows": [
            {"best": index == best, "cells": [_short(value) for value in row]}
            for index, row in zip(trials.index, trials.itertuples(index=False), strict=True)
        ],
    }


def _counted(trials: pd.DataFrame) -> str:
    """How many trials there were, and how many of them didn't come to their end."""
    text = _count(len(trials), "trial")
    others = [f"{(trials['state'] == state).sum()} {state}" for state in ("pruned", "failed")]
    others = [other for other in others if not other.startswith("0 ")]
    return f"{text} ({', '.join(others)})" if others else text


def _default(trials: pd.DataFrame, best: Any) -> str:
    """The validation Dice of the first trial, where it had the parameters as they stand."""
    if best is None or "attempt" not in trials:
        return ""
    first = trials[(trials["number"] == 0) & (trials["state"] == "complete")]
    if first.empty:
        return ""
    return (
        f" Trial 0, the parameters as they stood where the space holds them, had "
        f"{first['value'].iloc[0]:.3f}, the best {trials.loc[best, 'value']:.3f}."
    )


def _parameters(provenance: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The parameters that stages read, block by block; a block that several read is there once."""
    blocks: dict[str, Any] = {}
    for record in provenance.values():
        blocks |= record.get("params", {})
    return [
        {"name": name, "rows": [(key, _shown(value)) for key, value in flat(block).items()]}
        for name, block in blocks.items()
    ]


def _provenance(provenance: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Commit, code, inputs and versions of each stage."""
    result = []
    for stage, record in provenance.items():
        rows = [
            ("commit", record.get("commit") or "none: not in a git repository"),
            ("code", record.get("code", "")),
            *(
                (f"input: {name}", _shown(value))
                for name, value in flat(record.get("inputs", {})).items()
            ),
            ("versions", ", ".join(f"{n} {v}" for n, v in record.get("versions", {}).items())),
        ]
        result.append({"name": stage, "rows": rows})
    return result


def _shown(value: Any) -> str:
    """A value on one line, as in YAML; of an absolute path only the last part."""
    if isinstance(value, str):
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(value).is_absolute():
                return f"…/{kind(value).name}"
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return ", ".join(_shown(item) for item in value)
    return json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> str:
    """A cell of the table of trials."""
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")

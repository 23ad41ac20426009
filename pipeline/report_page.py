"""The report's words, numbers and plots: from what was read to what the template shows."""

import json
import math
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd
from markupsafe import Markup

from pipeline import figures, metrics
from pipeline.report_inputs import ReportInputs

SCORES = ("dice", "hd95_voxels", "hd95_mm")
CONVENTIONS = {
    "paper": (
        "an organ that isn't predicted counts Dice 0 and HD95 0, one that is predicted but isn't "
        "there counts Dice 1 and HD95 0"
    ),
    "strict": (
        "an organ that is neither there nor predicted is left out, one that is predicted but "
        "isn't there counts Dice 0, one that is missed counts Dice 0 and, as HD95, the volume's "
        "diagonal"
    ),
}
LOGITS = {
    "mean": "the mean of both decoders",
    "coarse": "the coarse decoder alone",
    "fine": "the fine decoder alone",
}
CURVES = {
    "loss": (
        "Loss",
        {"train_loss": "total", "train_loss_coarse": "coarse", "train_loss_fine": "fine"},
    ),
    "validation": ("Validation Dice", {"validation_dice": "validation Dice"}),
    "rate": ("Learning rate", {"learning_rate": "learning rate"}),
    "lambda": ("λ, weight of the coarse stage's loss", {"lambda": "λ"}),
}


def page(inputs: ReportInputs) -> dict[str, Any]:
    """Everything that the template shows but the pictures and the style sheet."""
    scores = inputs.scores
    return {
        "data_set": inputs.manifest.name,
        "setting": _setting(inputs),
        "overall": {
            "cases": scores["cases"],
            **{score: scores.get(f"mean_{score}") for score in SCORES},
        },
        "sentences": [_data_sentence(inputs), _scoring_sentence(inputs)],
        "split_hash": scores["split"],
        "organs": _organs(inputs),
        "strip": _strip(inputs),
        "cases": _rows(inputs.cases),
        "training_note": _training_note(inputs),
        "curves": _curves(inputs.history),
        "search": _search(inputs),
        "parameters": _parameters(inputs.provenance),
        "provenance": _provenance(inputs.provenance),
    }


def _setting(inputs: ReportInputs) -> str:
    config = inputs.model["config"]
    # not every model has a backbone or LoRA
    parts = [config["model"], *([config["backbone"]] if "backbone" in config else [])]
    parts.append(f"{config['image_size']} px")
    if "lora_rank" in config:
        parts.append(f"LoRA rank {config['lora_rank']}")
    return ", ".join([*parts, _count(len(inputs.history), "epoch")])


def _data_sentence(inputs: ReportInputs) -> str:
    def amount(role: str) -> str:
        counts = inputs.split.counts[role]
        return f"{_count(counts['slices'], 'slice')} of {_count(counts['subjects'], 'case')}"

    middle = f", validated on {amount('validation')}" if inputs.split.cases["validation"] else ""
    other = _count(len(inputs.split.cases["test"]), "other case")
    return f"Trained on {amount('train')}{middle}, scored on {other}."


def _scoring_sentence(inputs: ReportInputs) -> str:
    cases, scores = inputs.cases, inputs.scores
    empty = int(((cases["truth_voxels"] == 0) | (cases["predicted_voxels"] == 0)).sum())
    decided = (
        f"That decides {empty} of {_count(len(cases), 'pair')} of case and organ"
        if empty
        else "It decides nothing here: every organ is there and predicted in every case"
    )
    return (
        f"Scored is {LOGITS[scores['stage']]}, with convention “{scores['convention']}”: "
        f"{CONVENTIONS[scores['convention']]}. {decided}."
    )


def _organs(inputs: ReportInputs) -> list[dict[str, Any]]:
    result = []
    for index, name in enumerate(inputs.manifest.class_names):
        rows = inputs.cases[inputs.cases["organ"] == name]
        result.append(
            {
                "name": name,
                "colour": figures.organ_colour(index),
                "cases": int(rows["dice"].notna().sum()),
                **{
                    score: {
                        "mean": _number(metrics.mean(rows[score])),
                        "sd": _number(metrics.spread(rows[score])),
                    }
                    for score in SCORES
                },
            }
        )
    return result


def _strip(inputs: ReportInputs) -> Markup:
    groups = {
        name: inputs.cases.loc[inputs.cases["organ"] == name, "dice"].to_list()
        for name in inputs.manifest.class_names
    }
    return Markup(figures.strip_plot("strip", groups, "Dice"))


def _rows(cases: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {key: _number(value) if isinstance(value, float) else value for key, value in row.items()}
        for row in cases.to_dict("records")
    ]


def _training_note(inputs: ReportInputs) -> str:
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
    plots = []
    for name, (title, columns) in CURVES.items():
        lines = {
            label: history[column].to_list()
            for column, label in columns.items()
            if history[column].notna().any()
        }
        if not lines:
            continue
        svg = figures.line_plot(
            name,
            history["epoch"].to_list(),
            lines,
            label=next(iter(lines)) if len(lines) == 1 else "loss",
            markers=name == "validation",
        )
        plots.append({"title": title, "svg": Markup(svg)})
    return plots


def _search(inputs: ReportInputs) -> dict[str, Any]:
    trials = inputs.trials
    if trials.empty:
        return {
            "note": "No search was run (search.trials is 0): training took the parameters below.",
            "rows": [],
        }
    chosen = inputs.best.get("train", {})
    best = trials["value"].idxmax() if trials["value"].notna().any() else None
    taken = ", ".join(f"{key} {_short(value)}" for key, value in chosen.items())
    took = f"the best one's {taken}" if taken else "none of them"
    return {
        "note": (
            f"{_count(len(trials), 'trial')}, valued by Dice on the validation slices; "
            f"training took {took}."
        ),
        "plot": Markup(
            figures.best_so_far_plot(
                "trials", trials["number"].to_list(), trials["value"].to_list(), "Dice"
            )
        ),
        "columns": [column.replace("_", " ") for column in trials.columns],
        "rows": [
            {"best": index == best, "cells": [_short(value) for value in row]}
            for index, row in zip(trials.index, trials.itertuples(index=False), strict=True)
        ],
    }


def _parameters(provenance: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each block once, whichever stages read it."""
    blocks: dict[str, Any] = {}
    for record in provenance.values():
        blocks |= record.get("params", {})
    return [
        {"name": name, "rows": [(key, _shown(value)) for key, value in _flat(block)]}
        for name, block in blocks.items()
    ]


def _provenance(provenance: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    result = []
    for stage, record in provenance.items():
        rows = [
            ("commit", record.get("commit") or "none: not in a git repository"),
            ("code", record.get("code", "")),
            *((f"input: {name}", _shown(value)) for name, value in _flat(record.get("inputs", {}))),
            ("versions", ", ".join(f"{n} {v}" for n, v in record.get("versions", {}).items())),
        ]
        result.append({"name": stage, "rows": rows})
    return result


def _flat(value: Any, key: str = "") -> list[tuple[str, Any]]:
    """Nested mappings as (dotted key, value) pairs."""
    if not isinstance(value, Mapping) or not value:
        return [(key, value)] if key else []
    return [
        pair
        for name, inner in value.items()
        for pair in _flat(inner, f"{key}.{name}" if key else name)
    ]


def _shown(value: Any) -> str:
    """A value as in YAML's one-line form; of an absolute path only the last part."""
    if isinstance(value, str):
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(value).is_absolute():
                return f"…/{kind(value).name}"
        return value
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return ", ".join(_shown(item) for item in value)
    return json.dumps(value, ensure_ascii=False)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")

"""A study as tables: arms beside published and quoted numbers, organs, comparisons, runs, curve.

Dice is in percent, as papers print it. The headline counts empty organs as the arm's own runs do
(`evaluate.convention`); `strict` stands beside it. The same outputs give the same rows, whatever
the order in which the runs were finished.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.scoring.conventions import STRICT
from pipeline.scoring.scores import SCORES
from pipeline.scoring.significance import holm
from pipeline.scoring.tables import OVERALL
from pipeline.studies import verdict as rule
from pipeline.studies.curve import FULL, Curves, curves
from pipeline.studies.files import Numbers
from pipeline.studies.intervals import Estimate, Scores, estimate, stack
from pipeline.studies.outcomes import Facts, Outcome, arms
from pipeline.studies.plan import Study
from pipeline.studies.words import HASH

SHOWN = ("dice", "hd95_voxels", "hd95_mm")
PUBLISHED = {"dice": "dice", "hd95_voxels": "hd95"}  # score to its name in study files
FACTS = (
    *("model", "backbone", "side", "lora_rank", "tuned", "batch", "stage"),
    *("train_slices", "test_cases"),
)
ESTIMATED = ("mean", "sd_seeds", "sd_draws", "sd_folds", "low", "high")  # of an Estimate
SYNTHETIC = "Synthetic volumes: published numbers say nothing of them; no verdict."
Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Tables:
    """The rows of a study's tables; None stands for what there isn't.

    Attributes:
        study: the study.
        organs: in the order of the classes; none before the first run is done.
        arms: a row an arm: its means and all that is said of it; then the quoted rows.
        scores: a row an arm, convention, organ and score, OVERALL among the organs.
        comparisons: a row an arm, convention, organ and score: the arm minus the reference.
        runs: a row a run.
        curves: None where the study has none.
        notes: what has to be known before the numbers are believed, one sentence each.
    """

    study: Study
    organs: tuple[str, ...]
    arms: list[Row]
    scores: list[Row]
    comparisons: list[Row]
    runs: list[Row]
    curves: Curves | None
    notes: list[str]


def tables(study: Study, outcomes: Sequence[Outcome]) -> Tables:
    """The tables of a study, as far as its runs are done.

    Args:
        study: from `plan.load`.
        outcomes: of its runs, from `outcomes.outcomes`; those of other studies are passed over.
    """
    of_study = [outcome for outcome in outcomes if outcome.run.study == study.folder]
    order = {run.name: place for place, run in enumerate(study.runs)}
    by_arm = arms(sorted(of_study, key=lambda outcome: order[outcome.run.name]))
    organs = tuple(dict.fromkeys(organ for outcome in of_study for organ in outcome.organs))
    objections = rule.objections(study)
    scores = [
        row
        for arm, found in by_arm.items()
        for row in _score_rows(study, arm, found, organs, objections.get(arm))
    ]
    rows = [_arm_row(study, arm, found, scores) for arm, found in by_arm.items()]
    return Tables(
        study=study,
        organs=organs,
        arms=[*rows, *_quoted(study)],
        scores=scores,
        comparisons=_comparisons(study, by_arm, organs),
        runs=[_run_row(outcome, organs) for found in by_arm.values() for outcome in found],
        curves=_curves(study, by_arm, organs),
        notes=_notes(study, by_arm, objections),
    )


def conventions(convention: str) -> tuple[str, ...]:
    """The headline's convention, and `strict` beside it."""
    return tuple(dict.fromkeys((convention, STRICT)))


def _headline(found: Sequence[Outcome]) -> str:
    """The convention of an arm's own runs."""
    return found[0].run.params.evaluate.convention


def _score_rows(
    study: Study,
    arm: str,
    found: Sequence[Outcome],
    organs: Sequence[str],
    objection: str | None,
) -> list[Row]:
    rows: list[Row] = []
    published = study.file.published.get(arm)
    for convention in conventions(_headline(found)):
        scores = stack(found, convention, organs, SHOWN)
        if not scores.runs:
            continue
        values = estimate(scores)
        why = objection or rule.unsettled(found, scores)
        headline = convention == _headline(found)
        for place, organ in enumerate([*organs, OVERALL]):
            for column, score in enumerate(SHOWN):
                number = _published(published, score, organ) if headline else None
                about = {
                    "arm": arm,
                    "convention": convention,
                    "headline": headline,
                    "organ": organ,
                    "score": score,
                    "unit": "%" if _scale(score) == FULL else SCORES[score].unit,
                }
                cells = _cells(values, place, column, _scale(score))
                counts = {
                    "over": scores.over,
                    "runs": sum(outcome.done for outcome in found),
                    "cases": int(values.cases[place, column]),
                }
                rows.append(about | cells | counts | _beside(study, number, cells, why))
    return rows


def _scale(score: str) -> float:
    """Shares are shown in percent."""
    return FULL if SCORES[score].kind == "overlap" else 1.0


def _cells(values: Estimate, place: int, column: int, scale: float) -> Row:
    return {name: _number(getattr(values, name)[place, column] * scale) for name in ESTIMATED}


def _published(numbers: Numbers | None, score: str, organ: str) -> float | None:
    """What was published of an arm, under the headline's convention."""
    if numbers is None or score not in PUBLISHED:
        return None
    if organ == OVERALL:
        found: float | None = getattr(numbers, PUBLISHED[score])
        return found
    return numbers.organs.get(organ) if score == "dice" else None


def _beside(study: Study, number: float | None, cells: Row, objection: str | None) -> Row:
    """The published number with difference and verdict; none of these two on synthetic volumes."""
    row: Row = {"published": number, "difference": None, "verdict": None, "reason": None}
    if number is None or rule.is_synthetic(study) or cells["mean"] is None:
        return row
    low, high = (math.nan if cells[n] is None else cells[n] for n in ("low", "high"))
    found = rule.verdict(number, low, high, objection)
    difference = _number(cells["mean"] - number)
    return row | {"difference": difference, "verdict": found.word, "reason": found.reason}


def _arm_row(
    study: Study, arm: str, found: Sequence[Outcome], scores: Sequence[Row]
) -> dict[str, Any]:
    """An arm's row: headline, strict beside it, the facts of its runs."""
    done = [outcome for outcome in found if outcome.done]
    row: Row = {
        "row": arm,
        "kind": "arm",
        "runs": len(done),
        "planned": len(found),
        "seeds": len({outcome.run.seed for outcome in done}),
        "draws": len({outcome.run.draw for outcome in done}),
        "folds": len({outcome.run.fold for outcome in done} - {None}) or None,
    }
    overall = [r for r in scores if r["arm"] == arm and r["organ"] == OVERALL]
    for score in SHOWN:
        headline = next((r for r in overall if r["headline"] and r["score"] == score), {})
        for name in ESTIMATED:
            row[f"{score}_{name}"] = headline.get(name)
        if score in PUBLISHED:
            number = _published(study.file.published.get(arm), score, OVERALL)
            row[f"{score}_published"] = number
            for name in ("difference", "verdict", "reason"):
                row[f"{score}_{name}"] = headline.get(name)
    for score in SHOWN:
        strict = [r for r in overall if r["convention"] == STRICT and r["score"] == score]
        row[f"{score}_strict"] = strict[0]["mean"] if strict else None
    row["over"] = overall[0]["over"] if overall else None
    row["convention"] = _headline(found)
    row |= _joined([outcome.facts for outcome in done if outcome.facts is not None])
    if row["folds"]:
        tested = {case for outcome in done for case in outcome.cases["case"]}
        row["test_cases"] = str(len(tested))
    return row


def _joined(facts: Sequence[Facts]) -> Row:
    """The facts of several runs; where they differ, all values."""
    row: Row = {}
    for name in FACTS:
        row[name] = _values(str(getattr(found, name)) for found in facts)
    row["split"] = _values(found.split[:HASH] for found in facts)
    row["device"] = _values(str(found.device) for found in facts)
    return row | {"note": None, "source": None}


def _values(values: Any) -> str | None:
    return ", ".join(dict.fromkeys(value for value in values if value != "None")) or None


def _quoted(study: Study) -> list[Row]:
    """Rows of others' tables, with their source."""
    return [
        {
            "row": quoted.method,
            "kind": "quoted",
            "dice_published": quoted.dice,
            "hd95_voxels_published": quoted.hd95,
            "note": quoted.note or None,
            "source": quoted.source,
        }
        for quoted in study.file.quoted
    ]


def _comparisons(
    study: Study, by_arm: Mapping[str, Sequence[Outcome]], organs: Sequence[str]
) -> list[Row]:
    """Each arm minus the reference, under the conventions of the reference."""
    reference = study.file.reference
    if reference is None or not organs:
        return []
    rows: list[Row] = []
    for convention in conventions(_headline(by_arm[reference])):
        first = stack(by_arm[reference], convention, organs, SHOWN)
        of_convention: list[Row] = []
        for arm, found in by_arm.items():
            if arm == reference:
                continue
            scores = stack(found, convention, organs, SHOWN).minus(first)
            if scores.runs and scores.cases:
                of_convention += _difference_rows(arm, reference, convention, organs, scores)
        for score in SHOWN:
            # a family each: the means over organs, and all organs of all arms
            for overall in (True, False):
                _correct(
                    [
                        row
                        for row in of_convention
                        if row["score"] == score and (row["organ"] == OVERALL) == overall
                    ]
                )
        rows += of_convention
    return rows


def _difference_rows(
    arm: str, reference: str, convention: str, organs: Sequence[str], scores: Scores
) -> list[Row]:
    values = estimate(scores)
    return [
        {
            "arm": arm,
            "reference": reference,
            "convention": convention,
            "organ": organ,
            "score": score,
            "unit": "%" if _scale(score) == FULL else SCORES[score].unit,
            "difference": _number(values.mean[place, column] * _scale(score)),
            "low": _number(values.low[place, column] * _scale(score)),
            "high": _number(values.high[place, column] * _scale(score)),
            "p": _number(values.p[place, column]),
            "p_holm": None,
            "over": scores.over,
            "pairs": len(scores.runs),
            "cases": int(values.cases[place, column]),
        }
        for place, organ in enumerate([*organs, OVERALL])
        for column, score in enumerate(SHOWN)
    ]


def _correct(rows: Sequence[Row]) -> None:
    """Fill in Holm's correction for a family of comparisons."""
    p = [math.nan if row["p"] is None else row["p"] for row in rows]
    for row, corrected in zip(rows, holm(p), strict=True):
        row["p_holm"] = _number(corrected)


def _run_row(outcome: Outcome, organs: Sequence[str]) -> Row:
    """A run with its own means, and the Dice of each organ."""
    run, facts = outcome.run, outcome.facts
    row: Row = {
        "run": run.name,
        "arm": run.arm,
        "draw": run.draw,
        "seed": run.seed,
        "fold": run.fold,
        "state": outcome.missing or "done",
        "convention": run.params.evaluate.convention,
    }
    for suffix, convention in (("", run.params.evaluate.convention), ("_strict", STRICT)):
        scores = stack([outcome], convention, organs, SHOWN)
        means = scores.run_means()[0] if scores.runs else None
        for column, score in enumerate(SHOWN):
            value = None if means is None else _number(means[-1, column] * _scale(score))
            row[f"{score}{suffix}"] = value
        if not suffix:
            for place, organ in enumerate(organs):
                value = None if means is None else _number(means[place, 0] * FULL)
                row[f"dice {organ}"] = value
    row["device"] = None if facts is None else facts.device
    row["split"] = None if facts is None else facts.split
    return row


def _curves(
    study: Study, by_arm: Mapping[str, Sequence[Outcome]], organs: Sequence[str]
) -> Curves | None:
    wanted = study.file.curve
    if wanted is None:
        return None
    scored = {
        arm: (found, stack(found, _headline(found), organs, SHOWN)) for arm, found in by_arm.items()
    }
    return curves(wanted.along, wanted.by, scored)


def _notes(
    study: Study, by_arm: Mapping[str, Sequence[Outcome]], objections: Mapping[str, str]
) -> list[str]:
    notes = []
    if rule.is_synthetic(study):
        notes.append(SYNTHETIC)
    facts = [o.facts for found in by_arm.values() for o in found if o.facts is not None]
    notes += dict.fromkeys(
        f.caution[0].upper() + f.caution[1:] for f in facts if f.caution is not None
    )
    unfinished: dict[str, list[str]] = {}
    for arm, found in by_arm.items():
        todo = [outcome for outcome in found if not outcome.done]
        if todo:
            why = ", ".join(dict.fromkeys(str(outcome.missing) for outcome in todo))
            words = f"{len(todo)} of {len(found)} runs are to do ({why})."
            unfinished.setdefault(words, []).append(arm)
    notes += [f"{', '.join(names)}: {words}" for words, names in unfinished.items()]
    if not rule.is_synthetic(study):
        reasons = dict.fromkeys(f"{arm}: {why}." for arm, why in objections.items())
        notes += [reason for reason in reasons if study.file.published]
    return notes


def _number(value: float) -> float | None:
    """To 6 digits, so that the last bits of another machine don't show; None for NaN."""
    return None if math.isnan(value) else round(float(value), 6)

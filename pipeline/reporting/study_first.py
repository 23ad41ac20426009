"""What a reader of a study's page sees first: which arm is ahead, how sure that is, what's next."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline.scoring.conventions import STRICT
from pipeline.scoring.sheet import NONE, number
from pipeline.scoring.significance import SIGNIFICANT, smallest_p
from pipeline.scoring.tables import OVERALL
from pipeline.studies.sheets import interval, p_value
from pipeline.studies.tables import SYNTHETIC, Row, Tables
from pipeline.studies.verdict import FEWEST_SEEDS


def first_screen(tables: Tables, *, alone: bool) -> dict[str, Any]:
    """The values of a study's head.

    Args:
        tables: of the study; a run of it is finished.
        alone: whether the page is of the study, not of a collection.

    Returns:
        `verdict`: sentences; `warnings`: those that matter most first; `next`: commands and what
        they do.
    """
    return {
        "verdict": verdict(tables),
        # what the page says above all
        "warnings": [note for note in tables.notes if note != SYNTHETIC],
        "next": _next(tables, alone=alone),
    }


def verdict(tables: Tables) -> list[str]:
    """The arm with the highest mean Dice, how sure that is, and what came of published numbers."""
    scored = _scored(tables)
    if not scored:
        return []
    best = max(scored, key=_dice)
    which = "the highest" if len(scored) > 1 else "a"
    words = f"{best['row']} has {which} mean Dice of {number(best['dice_mean'], 2)}%"
    bounds = interval(best, "dice_", 2)
    sure = (
        f" (95% interval {bounds})" if bounds != NONE else "; its cases are too few for an interval"
    )
    sentences = [f"{words}{sure}."]
    if (strict := _strict(tables, best)) is not None:
        sentences.append(strict)
    if (other := _rival(tables, best["row"])) is not None:
        sentences += _compared(other)
    elif len(scored) > 1:
        sentences.append(_uncompared(tables))
    if verdicts := Counter(row["dice_verdict"] for row in scored if row["dice_verdict"]):
        counts = ", ".join(f"{count} {word}" for word, count in verdicts.items())
        sentences.append(f"Published means of Dice: {counts}.")
    return sentences


def _scored(tables: Tables) -> list[Row]:
    return [row for row in tables.arms if row["kind"] == "arm" and row["dice_mean"] is not None]


def _dice(row: Row) -> float:
    return float(row["dice_mean"])


def _strict(tables: Tables, best: Row) -> str | None:
    """An arm's mean Dice where every error counts; None where that is what was said already."""
    if best["dice_strict"] is None or best["dice_strict"] == best["dice_mean"]:
        return None
    row = next(
        row
        for row in tables.scores
        if (row["arm"], row["convention"], row["organ"], row["score"])
        == (best["row"], STRICT, OVERALL, "dice")
    )
    bounds = interval(row, "", 2)
    shown = "" if bounds == NONE else f" ({bounds})"
    return (
        f"With every missed or invented organ as an error it is {number(row['mean'], 2)}%{shown}."
    )


def _rival(tables: Tables, best: str) -> Row | None:
    """The best arm minus the reference; if it is the reference, the nearest arm minus it."""
    rows = [
        row
        for row in tables.comparisons
        if row["organ"] == OVERALL and row["score"] == "dice" and row["difference"] is not None
    ]
    rows = [row for row in rows if row["convention"] == rows[0]["convention"]]
    if best != tables.study.file.reference:
        return next((row for row in rows if row["arm"] == best), None)
    return max(rows, key=lambda row: row["difference"], default=None)


def _compared(row: Row) -> Sequence[str]:
    """A comparison of two arms, and whether it tells them apart."""
    difference = number(row["difference"], 2, sign=True)
    words = f"{row['arm']} minus {row['reference']} is {difference} points"
    if (bounds := interval(row, "", 2, sign=True)) != NONE:
        words += f" ({bounds})"
    p = row["p_holm"]
    cases = f"{row['cases']} case{'' if row['cases'] == 1 else 's'}"
    if smallest_p(row["cases"]) >= SIGNIFICANT:
        said = f"{words}; {cases} are too few to show any difference."
    elif p is None:
        said = f"{words}."
    elif p < SIGNIFICANT:
        said = f"{words}, p {p_value(p)}: more than chance between cases explains."
    else:
        said = f"{words}, p {p_value(p)}: over {cases} the two can't be told apart."
    if row["pairs"] >= FEWEST_SEEDS:
        return [said]
    pairs = f"{row['pairs']} pair{'' if row['pairs'] == 1 else 's'} of runs"
    return [said, f"With {pairs}, how far other seeds would move that isn't known."]


def _uncompared(tables: Tables) -> str:
    """Why no paired test tells the arms apart."""
    reference = tables.study.file.reference
    if reference is None:
        return "The study names no reference, so no test tells its arms apart."
    return f"No test tells the arms apart before {reference}, their reference, has finished."


def run_what_is_left(page: str, on: Sequence[str], left: int, planned: int) -> tuple[str, str]:
    """The command that does what is left of a study or a collection, and what it does."""
    config = f" --config on={','.join(on)}" if on else ""
    does = f"do what is left, {left} of {planned} runs"
    return f"snakemake --cores all{config} -- reports/{page}.html", does


def _calibrate(tables: Tables) -> list[tuple[str, str]]:
    """The command that hands on a model of all cases with what these tell of its doubt."""
    trained = {run.arm for run in tables.study.runs if run.predictions is None}
    rows = [row for row in _scored(tables) if row["row"] in trained]
    if not rows:
        return []
    best = max(rows, key=_dice)["row"]
    folder = f"results/{tables.study.folder}/{best}"
    command = f"hsam export --run MODEL --out FOLDER --format huggingface --calibrate {folder}"
    does = f"hand on a model trained like {best} on all cases; these say how far to believe it"
    return [(command, does)]


def _next(tables: Tables, *, alone: bool) -> list[tuple[str, str]]:
    """Commands and what they do."""
    study = tables.study
    arms = [row for row in tables.arms if row["kind"] == "arm"]
    left = sum(row["planned"] - row["runs"] for row in arms)
    option = f" --on {','.join(study.on)}" if study.on else ""
    found = []
    if left:
        planned = sum(row["planned"] for row in arms)
        found.append(run_what_is_left(study.name, study.on, left, planned))
        found.append((f"hsam study {study.name}{option}", "see how long that takes"))
    elif study.folds is not None:
        found += _calibrate(tables)
    if not alone:  # the page of a collection has no case browser
        whole = f"hsam study {study.name}{option} --report reports/{study.name}.html"
        found.append((whole, "this study's own page, with every case"))
    return [*found, (f"hsam study {study.name}{option} --table", "the tables in the terminal")]

"""A study's main table, laid out as the paper's: what each arm sets, organs, means, published ones.

Tables 9, 10 and 11 of the supplement are such tables: quoted methods first, a column for each
switch, organs where they were published.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.reporting import study_arms
from pipeline.scoring.conventions import STRICT
from pipeline.scoring.sheet import NONE, number
from pipeline.scoring.tables import OVERALL
from pipeline.studies import words
from pipeline.studies.sheets import interval
from pipeline.studies.tables import Row, Tables

DICE, HD95, HD95_MM = "dice", "hd95_voxels", "hd95_mm"


def main_table(tables: Tables) -> dict[str, Any]:
    """Header, rows and notes of the table.

    Returns:
        `columns` of `words`, whether they are a parameter's `key`, and whether they stand at the
        `left`; `rows`, each with `kind` ("quoted" or
        "arm"), and `cells` of ours, and in small below it what a search chose, the interval and
        what was published; `notes`, one sentence each.
    """
    study = tables.study
    keys, settings = study_arms.settings(study)
    organs = tables.organs if any(n.organs for n in study.file.published.values()) else ()
    quoted = [_quoted(row, len(keys), len(organs)) for row in tables.arms if _is_quoted(row)]
    ours = [
        _arm(tables, row, settings[row["row"]], organs)
        for row in tables.arms
        if not _is_quoted(row)
    ]
    columns = [_column("arm", left=True), *map(_of_key, keys), _column("trained with", left=True)]
    columns += [_column(organ) for organ in organs]
    columns += [_column("mean Dice, %"), _column("published"), _column("difference")]
    columns += [_column("verdict", left=True), _column("mean HD95, voxels"), _column("published")]
    columns += [_column("mean HD95, mm"), _column("runs")]
    rows = [*quoted, *ours]
    kept = [n for n in range(len(columns)) if n == 0 or any(_says(row, n) for row in rows)]
    trained = len(keys) + 1
    if trained in kept and len({row["cells"][trained]["text"] for row in rows} - {NONE}) == 1:
        kept.remove(trained)  # it is said of all runs
    notes = [_legend(tables, organs), *_reasons(tables)]
    return {
        "columns": [columns[n] for n in kept],
        "rows": [row | {"cells": [row["cells"][n] for n in kept]} for row in rows],
        "notes": [note for note in notes if note],
    }


def _column(text: str, *, left: bool = False, key: bool = False) -> dict[str, Any]:
    return {"words": text, "left": left, "key": key}


def _of_key(key: str) -> dict[str, Any]:
    """The column of what the arms set; a key without a name in the field stands as it is."""
    called = {words.ENCODER: words.ENCODER, **words.PARAMETERS}.get(key)
    return _column(called or key, left=True, key=called is None)


def _is_quoted(row: Row) -> bool:
    return row["kind"] == "quoted"


def _says(row: Mapping[str, Any], column: int) -> bool:
    return row["cells"][column]["text"] not in ("", NONE)


def _cell(text: str | None, *below: str) -> dict[str, Any]:
    return {"text": text or NONE, "below": [line for line in below if line and line != NONE]}


def _quoted(row: Row, keys: int, organs: int) -> dict[str, Any]:
    name = _cell(row["row"], row["source"] or "")
    number_of = (number(row.get(f"{score}_published"), 2) for score in (DICE, HD95))
    dice, hd95 = (_cell(text) for text in number_of)
    nothing = _cell(NONE)
    cells = [name, *[nothing] * keys, _cell(row["note"]), *[nothing] * organs]
    cells += [nothing, dice, nothing, nothing, nothing, hd95, nothing, nothing]
    return {"kind": "quoted", "cells": cells}


def _arm(
    tables: Tables, row: Row, settings: Sequence[str], organs: Sequence[str]
) -> dict[str, Any]:
    scores = {
        (found["organ"], found["score"]): found
        for found in tables.scores
        if found["arm"] == row["row"] and found["headline"]
    }
    cells = [_cell(row["row"], row["tuned"] or ""), *map(_cell, settings), _cell(_labels(row))]
    cells += [_organ(scores.get((organ, DICE))) for organ in organs]
    overall, hd95 = scores.get((OVERALL, DICE)), scores.get((OVERALL, HD95))
    cells.append(_score(overall, strict=row["dice_strict"]))
    cells.append(_cell(number(row["dice_published"], 2)))
    cells.append(_cell(number(row["dice_difference"], 2, sign=True)))
    cells.append(_cell(row["dice_verdict"]))
    cells.append(_score(hd95, strict=row["hd95_voxels_strict"]))
    cells.append(_cell(number(row["hd95_voxels_published"], 2)))
    cells.append(_score(scores.get((OVERALL, HD95_MM)), strict=row["hd95_mm_strict"]))
    cells.append(_cell(f"{row['runs']} of {row['planned']}"))
    return {"kind": "arm", "cells": cells}


def _labels(row: Row) -> str | None:
    slices = row["train_slices"]
    return None if slices is None else f"{slices} labelled slices"


def _score(row: Row | None, strict: float | None) -> dict[str, Any]:
    """A mean with its spread over seeds; below it the interval, and what strict counting gives."""
    if row is None or row["mean"] is None:
        return _cell(NONE)
    mean = number(row["mean"], 2)
    counted = number(strict, 2)
    other = f"strict {counted}" if counted not in (mean, NONE) else ""
    return _cell(f"{mean}{_spread(row)}", interval(row, "", 2), other)


def _organ(row: Row | None) -> dict[str, Any]:
    """An organ's mean; below it its spread over seeds, and what was published."""
    if row is None:
        return _cell(NONE)
    paper = "" if row["published"] is None else f"paper {row['published']:.2f}"
    return _cell(number(row["mean"], 2), _spread(row).strip(), paper)


def _spread(row: Row) -> str:
    return "" if row["sd_seeds"] is None else f" ± {number(row['sd_seeds'], 2)}"


def _legend(tables: Tables, organs: Sequence[str]) -> str:
    done = [row for row in tables.scores if row["headline"]]
    text = "Mean over the draws' means over their seeds"
    if tables.study.folds:
        text += f", of all cases, each tested in one of {tables.study.folds} folds"
    if any(row["sd_seeds"] is not None for row in done):
        text += " ± standard deviation over seeds"
    if over := list(dict.fromkeys(row["over"] for row in done if row["low"] is not None)):
        text += f"; below it the 95% interval over {_levels(over)}"
    overall = [row for row in done if row["organ"] == OVERALL and row["score"] == DICE]
    for level in ("draws", "folds"):
        spread = {row["arm"]: row[f"sd_{level}"] for row in overall}
        said = ", ".join(f"{arm} {sd:.2f}" for arm, sd in spread.items() if sd is not None)
        if said:
            text += f". Standard deviation of Dice over {level}: {said}"
    if any(row["convention"] != STRICT for row in done):
        text += ". “strict”: where every missed or invented organ counts as an error"
    if tables.study.file.source:
        text += f". Published: {tables.study.file.source}"
    return f"{text}."


def _levels(over: Sequence[str]) -> str:
    """What intervals are over: "cases and seeds" of arms with several, "cases alone" of others."""
    said = [found.replace(", ", " and ") for found in over]
    return ", or ".join(text if " and " in text else f"{text} alone" for text in said)


def _reasons(tables: Tables) -> list[str]:
    """Why each verdict is what it is."""
    return [
        f"{row['row']}: {row['dice_verdict']}, {row['dice_reason']}."
        for row in tables.arms
        if row.get("dice_verdict")
    ]

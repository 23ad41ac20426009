"""Tables of scores: of each case, and of each organ with standard deviation and interval.

They are made from what was measured once, under every convention.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.scoring import audit, dice
from pipeline.scoring.bootstrap import mean_intervals, nanmean
from pipeline.scoring.conventions import (
    CONVENTIONS,
    DIAGONAL,
    STRICT,
    Verdict,
    apply_convention,
)
from pipeline.scoring.measures import Measures
from pipeline.scoring.predicted_dice import Pair, Predicted
from pipeline.scoring.scores import ROUNDING, SCORES, in_view
from pipeline.scoring.uncertainty import Signs

OVERALL = "mean over organs"
# of one case: organ to what was measured
Measured = Mapping[str, Measures]

# columns of the table `organs`
ORGANS = pa.schema(
    [
        pa.field("convention", pa.string(), nullable=False),
        pa.field("organ", pa.string(), nullable=False),
        pa.field("score", pa.string(), nullable=False),
        pa.field("mean", pa.float64()),
        pa.field("sd", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("cases", pa.int64(), nullable=False),
        pa.field("below_voxel", pa.bool_(), nullable=False),
    ]
)

# columns of the tables `stages` and `review`
STAGES = pa.schema([pa.field("stage", pa.string(), nullable=False), *ORGANS])
REVIEW = pa.schema(
    [
        pa.field("case", pa.string(), nullable=False),
        pa.field("organ", pa.string(), nullable=False),
        pa.field("slice", pa.int64(), nullable=False),
        pa.field("first", pa.int64(), nullable=False),
        pa.field("last", pa.int64(), nullable=False),
        pa.field("voxel", pa.string()),
        pa.field("expected_mm2", pa.float64(), nullable=False),
        pa.field("disagreement", pa.float64()),
        pa.field("error_mm2", pa.float64(), nullable=False),
        pa.field("dice", pa.float64()),
    ]
)
# columns of the table `predicted_dice`
PREDICTED_DICE = pa.schema(
    [
        pa.field("case", pa.string(), nullable=False),
        pa.field("organ", pa.string(), nullable=False),
        pa.field("predicted", pa.float64()),
        pa.field("low", pa.float64()),
        pa.field("high", pa.float64()),
        pa.field("dice", pa.float64(), nullable=False),
        pa.field("expected", pa.float64(), nullable=False),
        pa.field("agreement", pa.float64()),
        pa.field("unlike", pa.bool_(), nullable=False),
    ]
)
# columns that tables of earlier versions may lack
ADDED = {"voxel_mm", "below_voxel", "voxel", "expected", "agreement", "unlike"}


def case_schema() -> pa.Schema:
    """Columns of the table `cases`: case, organ, every score, voxels of truth and prediction,
    and the longest side of a voxel."""
    return pa.schema(
        [
            pa.field("case", pa.string(), nullable=False),
            pa.field("organ", pa.string(), nullable=False),
            *(pa.field(score, pa.float64()) for score in SCORES),
            pa.field("truth_voxels", pa.int64(), nullable=False),
            pa.field("predicted_voxels", pa.int64(), nullable=False),
            pa.field("voxel_mm", pa.float64(), nullable=False),
        ]
    )


def case_rows(measured: Mapping[str, Measured], convention: str) -> list[dict[str, Any]]:
    """Rows of the table `cases`, one a case and organ; None for what the convention leaves out.

    Args:
        measured: case to organ to what was measured.
        convention: one of `conventions.CONVENTIONS`.
    """
    return [
        {
            "case": case,
            "organ": organ,
            **_cells(apply_convention(measures, convention)),
            "truth_voxels": measures.truth_voxels,
            "predicted_voxels": measures.predicted_voxels,
            "voxel_mm": measures.sides_mm[1],
        }
        for case, organs in measured.items()
        for organ, measures in organs.items()
    ]


def organ_rows(measured: Mapping[str, Measured], organs: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the table `organs`: one a convention, organ and score, and the mean over organs.

    Args:
        measured: case to organ to what was measured.
        organs: in the order of the rows.

    Returns:
        Rows of `mean` and `sd` (n - 1) over the `cases` that count, and `low` and `high`, the 95%
        interval of the mean. In the rows of OVERALL, `mean` is the mean of the organs' means, and
        `sd` is over the cases' means over organs. None where too few cases count: none for the
        mean, one for `sd`, fewer than `bootstrap.FEWEST` for the interval. `below_voxel` is whether
        the score's tolerance is below the side of a voxel of any case.
    """
    rows = []
    voxel = max((longest for _, longest in _sides(measured)), default=0.0)
    for convention in CONVENTIONS:
        values = score_array(measured, organs, convention)
        means, low, high = mean_intervals(values)
        for row, organ in enumerate([*organs, OVERALL]):
            by_case = values[:, row] if row < len(organs) else nanmean(values, 1)
            for column, score in enumerate(SCORES):
                statistics = {
                    "mean": means[row, column],
                    "sd": dice.spread(by_case[:, column]),
                    "low": low[row, column],
                    "high": high[row, column],
                }
                rows.append(
                    {
                        "convention": convention,
                        "organ": organ,
                        "score": score,
                        **_cells(statistics),
                        "cases": int((~np.isnan(by_case[:, column])).sum()),
                        "below_voxel": SCORES[score].is_below(voxel),
                    }
                )
    return rows


def score_array(
    measured: Mapping[str, Measured], organs: Sequence[str], convention: str
) -> NDArray[np.float64]:
    """(cases, organs, scores) under a convention; NaN: left out of the means."""
    return np.array(
        [
            [list(apply_convention(case[organ], convention).values()) for organ in organs]
            for case in measured.values()
        ]
    ).reshape(len(measured), len(organs), len(SCORES))


def headline(rows: Iterable[Mapping[str, Any]], convention: str) -> dict[str, Any]:
    """The means of one convention, as they stand in metrics.json.

    A mean over no case has no entry, so every number is finite.

    Args:
        rows: of the table `organs`.
        convention: one of `conventions.CONVENTIONS`.

    Returns:
        `mean_<score>` of every score, and the summary's scores by organ.
    """
    overall: dict[str, Any] = {}
    by_organ: dict[str, Any] = {score.name: {} for score in in_view("summary")}
    for row in rows:
        if row["convention"] != convention or row["mean"] is None:
            continue
        if row["organ"] == OVERALL:
            overall[f"mean_{row['score']}"] = row["mean"]
        elif row["score"] in by_organ:
            by_organ[row["score"]][row["organ"]] = row["mean"]
    return overall | by_organ


def overall(rows: Iterable[Mapping[str, Any]], convention: str) -> dict[str, float]:
    """Means over organs of the summary's scores under one convention, as `mean_<score>`.

    A mean over no case has no entry.

    Args:
        rows: of the table `organs`.
        convention: one of `conventions.CONVENTIONS`.
    """
    shown = {score.name for score in in_view("summary")}
    return {
        f"mean_{row['score']}": row["mean"]
        for row in rows
        if (row["convention"], row["organ"]) == (convention, OVERALL)
        and row["score"] in shown
        and row["mean"] is not None
    }


def pair_counts(measured: Mapping[str, Measured]) -> dict[str, int]:
    """How many pairs of case and organ there are, and how many have an empty mask.

    Returns:
        all: pairs; of these, missed: in the truth alone, invented: in the prediction alone,
        absent: in neither.
    """
    present = [
        (measures.truth_voxels > 0, measures.predicted_voxels > 0)
        for organs in measured.values()
        for measures in organs.values()
    ]
    return {
        "all": len(present),
        "missed": present.count((True, False)),
        "invented": present.count((False, True)),
        "absent": present.count((False, False)),
    }


def write_scores(
    folder: Path, measured: Mapping[str, Measured], organs: Sequence[str], convention: str
) -> list[dict[str, Any]]:
    """Write the tables `cases`, under one convention, and `organs`, under all.

    Returns:
        Rows of `organs`.
    """
    rows = organ_rows(measured, organs)
    write_table(folder, "cases", case_rows(measured, convention), case_schema())
    write_table(folder, "organs", rows, ORGANS)
    return rows


def summary(
    rows: Sequence[Mapping[str, Any]], measured: Mapping[str, Measured], convention: str
) -> dict[str, Any]:
    """The scores in metrics.json: means under the chosen convention and all others, pair counts,
    the shortest and longest side of a voxel, and the number of cases in which it is longer than
    the tolerance of a score.

    Args:
        rows: of the table `organs`.
        measured: case to organ to what was measured.
        convention: the chosen one.
    """
    return headline(rows, convention) | {
        "conventions": {name: overall(rows, name) for name in CONVENTIONS},
        "pairs": pair_counts(measured),
        **_voxels(measured),
    }


def _sides(measured: Mapping[str, Measured]) -> list[tuple[float, float]]:
    """Shortest and longest side of a voxel of each case, mm."""
    return [next(iter(organs.values())).sides_mm for organs in measured.values() if organs]


def _voxels(measured: Mapping[str, Measured]) -> dict[str, Any]:
    """`voxel_mm` and `below_voxel` of metrics.json; see `summary`."""
    sides = _sides(measured)
    if not sides:
        return {}
    below = {
        name: sum(score.is_below(longest) for _, longest in sides)
        for name, score in SCORES.items()
        if score.tolerance_mm is not None
    }
    shortest, longest = min(side for side, _ in sides), max(side for _, side in sides)
    return {"voxel_mm": {"shortest": shortest, "longest": longest}, "below_voxel": below}


def write_table(
    folder: Path, name: str, rows: Sequence[Mapping[str, Any]], schema: pa.Schema
) -> None:
    """Write `<name>.parquet` and `<name>.csv`, each atomically; None is an empty cell."""
    table = pa.Table.from_pylist(list(rows), schema)
    with files.atomic_path(folder / f"{name}.parquet") as temporary:
        pq.write_table(table, temporary)
    text = table.to_pandas().to_csv(index=False, lineterminator="\n")
    files.write_text(folder / f"{name}.csv", text)


def read_table(path: Path, schema: pa.Schema) -> pd.DataFrame:
    """The table of a parquet file that `write_table` wrote.

    Args:
        path: the file.
        schema: the columns that it was written with, of which only those of ADDED may lack.

    Raises:
        UserError: missing, damaged, or without one of the columns, as another version wrote it.
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: damaged ({reason}); evaluate the run again.") from None
    if missing := [name for name in schema.names if name not in {*table.columns, *ADDED}]:
        raise UserError(f"{path}: no column {', '.join(missing)}; evaluate the run again.")
    return table


def predicted_rows(
    pairs: Iterable[Pair], found: Iterable[tuple[Pair, Predicted]]
) -> list[dict[str, Any]]:
    """Rows of the table `predicted_dice`: all pairs, and what was predicted of those in `found`."""
    said = {
        (pair.case, pair.organ): {"predicted": each.dice, "low": each.low, "high": each.high}
        for pair, each in found
    }
    return [
        {
            "case": pair.case,
            "organ": pair.organ,
            **said.get((pair.case, pair.organ), {}),
            "dice": pair.dice,
            **asdict(pair.signs),
            "unlike": pair.unlike,
        }
        for pair in pairs
    ]


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a table `predicted_dice`.

    Args:
        path: its parquet file.

    Raises:
        UserError: as for `read_table`, or an earlier version wrote it, without the signs.
    """
    table = read_table(path, PREDICTED_DICE)
    if missing := [name for name in PREDICTED_DICE.names if name not in table.columns]:
        raise UserError(f"{path}: no column {', '.join(missing)}; evaluate the run again.")
    return [
        Pair(
            row.case,
            row.organ,
            Signs(row.expected, None if pd.isna(row.agreement) else row.agreement),
            row.dice,
            bool(row.unlike),
        )
        for row in table.itertuples()
    ]


def to_json(measured: Measured) -> dict[str, dict[str, Any]]:
    """What was measured as JSON types, an undefined score as None."""
    return {
        organ: asdict(measures) | {"scores": _cells(measures.scores)}
        for organ, measures in measured.items()
    }


def from_json(stored: Mapping[str, Mapping[str, Any]]) -> dict[str, Measures]:
    """The inverse of `to_json`."""
    measured = {}
    for organ, fields in stored.items():
        scores = {k: math.nan if v is None else v for k, v in fields["scores"].items()}
        sides = tuple(fields["sides_mm"])
        measured[organ] = Measures(**{**fields, "scores": scores, "sides_mm": sides})
    return measured


def print_scores(scores: Mapping[str, Any], title: str) -> None:
    """Print the summary's scores of each organ, their means, and what other conventions give.

    Args:
        scores: metrics.json of `hsam evaluate` or `hsam score`.
        title: above the table.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("organ")
    columns = in_view("summary", voxel_mm(scores))
    for score in columns:
        table.add_column(score.label, justify="right")
    for organ in scores["dice"]:
        values = [_shown(scores[score.name].get(organ), score.digits) for score in columns]
        # Text, since an organ's name may look like markup
        table.add_row(Text(organ), *values)
    table.add_section()
    means = [_shown(scores.get(f"mean_{score.name}"), score.digits) for score in columns]
    table.add_row("mean", *means, style="bold")
    console = Console()
    console.print(table)
    for sentence in cautions(scores):
        console.print(Text(f"warning: {sentence}"), soft_wrap=True)
    console.print(Text(_note(scores)), soft_wrap=True)


def cautions(scores: Mapping[str, Any]) -> list[str]:
    """What has to be known before the scores are believed, one sentence each.

    Args:
        scores: metrics.json of `hsam evaluate` or `hsam score`.
    """
    audited = scores.get("audit")
    found = (
        pretraining_caution(scores),
        empty_caution(scores),
        tolerance_caution(scores),
        None if audited is None else audit.sentence(audited) + ".",
    )
    return [sentence for sentence in found if sentence is not None]


def pretraining_caution(scores: Mapping[str, Any]) -> str | None:
    """A sentence where the encoder may have seen test images before; None where not.

    Args:
        scores: metrics.json of `hsam evaluate` or `hsam score`.
    """
    before = scores.get("pretraining") or {}
    if not before.get("may_include_test"):
        return None
    return (
        f"the encoder's weights were trained on {before['trained_on']}; test images of this data "
        "set may be among these, and then the scores say too much about unseen images."
    )


def voxel_mm(scores: Mapping[str, Any]) -> float | None:
    """Longest side of a voxel of the scored cases, mm; None where metrics.json doesn't say."""
    sides = scores.get("voxel_mm")
    return None if sides is None else float(sides["longest"])


def tolerance_caution(scores: Mapping[str, Any]) -> str | None:
    """A sentence on tolerances below the voxel size; None where there is none, or none is known.

    Args:
        scores: metrics.json of `hsam evaluate` or `hsam score`.
    """
    below = {name: cases for name, cases in scores.get("below_voxel", {}).items() if cases}
    marked = [SCORES[name] for name in below if name in SCORES]
    if not marked:
        return None
    names = ", ".join(
        f"{score.title} (in {below[score.name]} of {scores['cases']} cases)" for score in marked
    )
    shortest, longest = (scores["voxel_mm"][key] for key in ("shortest", "longest"))
    everywhere = all(score.is_below(shortest) for score in marked)
    sides = f"{longest:.4g} mm"
    if not math.isclose(shortest, longest, rel_tol=ROUNDING):
        sides = f"sides of {shortest:.4g} to {sides}"
    return (
        f"{names}: the tolerance is below the voxel size ({sides}), so that a surface one voxel "
        f"off{'' if everywhere else ' along the longest side'} counts as wrong; such a number "
        "says as much about the grid as about the prediction."
    )


def empty_caution(scores: Mapping[str, Any]) -> str | None:
    """A sentence on missed and invented organs and what they count in the means; None without.

    Args:
        scores: metrics.json of `hsam evaluate` or `hsam score`.
    """
    pairs, name = scores["pairs"], scores["convention"]
    convention = CONVENTIONS[name]
    parts = [
        f"{pairs[kind]} {'is' if pairs[kind] == 1 else 'are'} {kind}, counting {_counts(verdict)}"
        for kind, verdict in (("missed", convention.missed), ("invented", convention.invented))
        if pairs[kind]
    ]
    if not parts:
        return None
    text = f"of {pairs['all']} pairs of case and organ {', and '.join(parts)}, by convention {name}"
    if name == STRICT:
        return f"{text}."
    strict = scores["conventions"][STRICT]
    means = ", ".join(
        f"{score.title} {_shown(strict.get(f'mean_{score.name}'), score.digits)}"
        + f" {score.unit}" * bool(score.unit)
        for score in in_view("summary")
    )
    return f"{text}; where every error counts ({STRICT}) the means are {means}."


def _counts(verdict: Verdict) -> str:
    """What a verdict means for Dice and HD95, in words."""
    overlap = f"Dice {verdict.overlap:g}"
    right = " (as if right)" if verdict.overlap == 1 else ""
    if math.isnan(verdict.distance):
        return f"{overlap}{right} and no HD95"
    if verdict.distance == DIAGONAL:
        return f"{overlap}{right} and the volume's diagonal as HD95"
    return f"{overlap} and HD95 0 ({'both ' if right else ''}as if right)"


def _cells(values: Mapping[str, float]) -> dict[str, float | None]:
    """The same with None in place of NaN."""
    return {name: dice.none_if_nan(value) for name, value in values.items()}


def _note(scores: Mapping[str, Any]) -> str:
    """How much the convention matters here, and the mean Dice by the others."""
    pairs, headline = scores["pairs"], scores["convention"]
    empty = pairs["missed"] + pairs["invented"] + pairs["absent"]
    if not empty:
        return "convention: none matters, every organ is there and predicted in every case"
    others = ", ".join(
        f"{name} {_shown(means.get('mean_dice'), 3)}"
        for name, means in scores["conventions"].items()
        if name != headline
    )
    return (
        f"convention: {headline}; it decides {empty} of {pairs['all']} pairs of case and organ. "
        f"Mean Dice by others: {others}"
    )


def _shown(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"

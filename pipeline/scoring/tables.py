"""Tables of scores: each case, and each organ with its spread and confidence interval.

One measurement gives every convention's tables. Intervals are percentile bootstraps over cases,
seeded, so the same scores give the same interval.
"""

import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.core import files
from pipeline.scoring import dice
from pipeline.scoring.conventions import CONVENTIONS, apply_convention
from pipeline.scoring.measures import Measures
from pipeline.scoring.scores import SCORES, in_view

OVERALL = "mean over organs"
SEED, RESAMPLES, LEVEL = 0, 10_000, 95
BLOCK = 500  # resamples at a time, so that many cases need little memory

# organ to what was measured, of one case
Measured = Mapping[str, Measures]

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
    ]
)


def case_schema() -> pa.Schema:
    """Columns of the table `cases`: case, organ, every score, voxels of truth and prediction."""
    return pa.schema(
        [
            pa.field("case", pa.string(), nullable=False),
            pa.field("organ", pa.string(), nullable=False),
            *(pa.field(score, pa.float64()) for score in SCORES),
            pa.field("truth_voxels", pa.int64(), nullable=False),
            pa.field("predicted_voxels", pa.int64(), nullable=False),
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
            **{k: _none(v) for k, v in apply_convention(measures, convention).items()},
            "truth_voxels": measures.truth_voxels,
            "predicted_voxels": measures.predicted_voxels,
        }
        for case, organs in measured.items()
        for organ, measures in organs.items()
    ]


def organ_rows(measured: Mapping[str, Measured], organs: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of ORGANS: every convention, organ and score, and the mean over organs.

    `mean` and `sd` (n - 1) are over the cases that count, `low` and `high` bound the 95% interval
    of the mean. In the rows OVERALL, `mean` is that of the organs' means and `sd` that of the
    cases' means over organs. None where there is no number: no case counts, or below two for sd
    and interval.

    Args:
        measured: case to organ to what was measured.
        organs: in the order of the rows.
    """
    rows = []
    for convention in CONVENTIONS:
        values = score_array(measured, organs, convention)
        means, low, high = intervals(values)
        for place, organ in enumerate([*organs, OVERALL]):
            over = values[:, place] if place < len(organs) else nanmean(values, 1)
            for column, score in enumerate(SCORES):
                kept = int((~np.isnan(over[:, column])).sum())
                summary = {
                    "mean": means[place, column],
                    "sd": dice.spread(over[:, column]),
                    "low": low[place, column],
                    "high": high[place, column],
                }
                about = {"convention": convention, "organ": organ, "score": score}
                rows.append(about | {k: _none(v) for k, v in summary.items()} | {"cases": kept})
    return rows


def score_array(
    measured: Mapping[str, Measured], organs: Sequence[str], convention: str
) -> NDArray[np.float64]:
    """(cases, organs, scores) under a convention; NaN is left out."""
    return np.array(
        [
            [list(apply_convention(found[organ], convention).values()) for organ in organs]
            for found in measured.values()
        ]
    ).reshape(len(measured), len(organs), len(SCORES))


def intervals(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Means over cases with the bounds of their 95% bootstrap interval.

    Cases are resampled with all their organs and scores; a resample in which nothing counts is
    left out.

    Args:
        values: (cases, organs, scores), NaN for what is left out.

    Returns:
        mean, low and high, each (organs + 1, scores), the last row the mean over organs; NaN where
        no case counts, and for the bounds where fewer than two do.
    """
    cases, organs, scores = values.shape
    flat = values.reshape(cases, -1)
    known = ~np.isnan(flat)
    filled = np.where(known, flat, 0.0)
    means = _with_overall(_ratio(np.ones((1, cases)), filled, known), organs, scores)[0]
    samples = np.concatenate(
        [
            _with_overall(_ratio(weights, filled, known), organs, scores)
            for weights in resampled(cases)
        ]
    )
    low, high = (
        nanquantile(samples, share) for share in ((100 - LEVEL) / 200, (100 + LEVEL) / 200)
    )
    counts = known.reshape(cases, organs, scores)
    few = np.concatenate([counts.sum(0) < 2, (counts.any(1).sum(0) < 2)[None]])
    low[few], high[few] = math.nan, math.nan
    return means, low, high


def resampled(cases: int) -> Iterator[NDArray[np.float64]]:
    """How often each case is drawn, (resamples, cases), in blocks; the same in every call."""
    random = np.random.default_rng(SEED)
    shares = np.full(cases, 1 / cases)
    for _ in range(RESAMPLES // BLOCK):
        yield random.multinomial(cases, shares, size=BLOCK).astype(np.float64)


def nanmean(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Mean along an axis without the NaNs; NaN where there is nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmean(values, axis=axis)


def nanquantile(samples: NDArray[np.float64], share: float) -> NDArray[np.float64]:
    """Quantile along the first axis without the NaNs; NaN where there is nothing else."""
    shape = samples.shape[1:]
    result = [
        np.quantile(kept, share) if (kept := column[~np.isnan(column)]).size else math.nan
        for column in samples.reshape(len(samples), -1).T
    ]
    return np.array(result).reshape(shape)


def headline(rows: Iterable[Mapping[str, Any]], convention: str) -> dict[str, Any]:
    """The means of one convention for metrics.json: `mean_<score>`, and by organ Dice and HD95.

    What is left out in every case has no entry, so every number is finite.

    Args:
        rows: of ORGANS.
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

    What is left out in every case has no entry.

    Args:
        rows: of ORGANS.
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
    """How many pairs of case and organ there are, and how many of them are empty somewhere:
    missed (there, not predicted), invented (predicted, not there) and absent (neither)."""
    empty = [
        (m.truth_voxels > 0, m.predicted_voxels > 0)
        for organs in measured.values()
        for m in organs.values()
    ]
    return {
        "all": len(empty),
        "missed": empty.count((True, False)),
        "invented": empty.count((False, True)),
        "absent": empty.count((False, False)),
    }


def write_scores(
    folder: Path, measured: Mapping[str, Measured], organs: Sequence[str], convention: str
) -> list[dict[str, Any]]:
    """Write the tables `cases`, under one convention, and `organs`, under all; give the latter."""
    rows = organ_rows(measured, organs)
    write_table(folder, "cases", case_rows(measured, convention), case_schema())
    write_table(folder, "organs", rows, ORGANS)
    return rows


def summary(
    rows: Sequence[Mapping[str, Any]], measured: Mapping[str, Measured], convention: str
) -> dict[str, Any]:
    """What metrics.json says of scores: the headline, every convention's means, the pairs.

    Args:
        rows: of ORGANS.
        measured: case to organ to what was measured.
        convention: the headline's.
    """
    return headline(rows, convention) | {
        "conventions": {name: overall(rows, name) for name in CONVENTIONS},
        "pairs": pair_counts(measured),
    }


def write_table(
    folder: Path, name: str, rows: Sequence[Mapping[str, Any]], schema: pa.Schema
) -> None:
    """Write `<name>.parquet` and `<name>.csv`, each atomically; an empty cell is left out."""
    table = pa.Table.from_pylist(list(rows), schema)
    with files.atomic_path(folder / f"{name}.parquet") as temporary:
        pq.write_table(table, temporary)
    text = table.to_pandas().to_csv(index=False, lineterminator="\n")
    files.write_text(folder / f"{name}.csv", text)


def to_json(measured: Measured) -> dict[str, dict[str, Any]]:
    """What was measured as JSON types, an undefined score as None."""
    return {
        organ: asdict(measures) | {"scores": {k: _none(v) for k, v in measures.scores.items()}}
        for organ, measures in measured.items()
    }


def from_json(stored: Mapping[str, Mapping[str, Any]]) -> dict[str, Measures]:
    """The inverse of `to_json`."""
    measured = {}
    for organ, fields in stored.items():
        scores = {k: math.nan if v is None else v for k, v in fields["scores"].items()}
        measured[organ] = Measures(**{**fields, "scores": scores})
    return measured


def _ratio(
    weights: NDArray[np.float64], filled: NDArray[np.float64], known: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Weighted means of each column, (rows of weights, columns); NaN where nothing counts."""
    with np.errstate(invalid="ignore"):
        return (weights @ filled) / (weights @ known)


def _with_overall(means: NDArray[np.float64], organs: int, scores: int) -> NDArray[np.float64]:
    """(samples, organs * scores) -> (samples, organs + 1, scores), last the mean over organs."""
    means = means.reshape(-1, organs, scores)
    return np.concatenate([means, nanmean(means, 1)[:, None]], axis=1)


def _none(value: float) -> float | None:
    return None if math.isnan(value) else value


def print_scores(scores: Mapping[str, Any], title: str) -> None:
    """Print the summary's scores of each organ, their means, and what other conventions give.

    Args:
        scores: metrics.json of `hsam evaluate` or `hsam score`.
        title: above the table.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("organ")
    columns = in_view("summary")
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
    console.print(Text(_note(scores)), soft_wrap=True)


def _note(scores: Mapping[str, Any]) -> str:
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

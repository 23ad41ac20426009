"""Writes a study's tables: CSV and parquet with all numbers, Markdown and LaTeX for people.

They come into one folder in one piece; the same tables give the same bytes.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import files
from pipeline.core.writable import naming_unwritable
from pipeline.scoring.sheet import latex, markdown
from pipeline.studies.curve import Curves, Point
from pipeline.studies.plan import Study
from pipeline.studies.sheets import sheets
from pipeline.studies.tables import ESTIMATED, FACTS, PUBLISHED, SHOWN, Tables

FOLDER = "tables"  # in the study's folder of results
WHOLE = {"runs", "planned", "seeds", "draws", "folds", "draw", "seed", "fold", "pairs", "cases"}
WORDS = {
    *("arm", "row", "run", "kind", "state", "convention", "organ", "score", "unit", "over"),
    *("reference", "verdict", "reason", "note", "source", "split", "device", "of", *FACTS),
}


def folder_of(study: Study, results: Path) -> Path:
    """Where a study's tables lie."""
    return Path(results) / study.folder / FOLDER


def write(tables: Tables, folder: Path) -> None:
    """Write all tables in place of what is in `folder`.

    Raises:
        UserError: the folder can't be written; what stood there stays.
    """
    folder = Path(folder)
    with files.staged_folder(folder) as new, naming_unwritable(folder):
        for name, columns, rows in data(tables):
            _write_rows(new / name, columns, rows)
        for sheet in sheets(tables):
            (new / f"{sheet.name}.md").write_text(markdown(sheet), encoding="utf-8")
            (new / f"{sheet.name}.tex").write_text(latex(sheet), encoding="utf-8")


def data(tables: Tables) -> list[tuple[str, list[str], list[dict[str, Any]]]]:
    """Name, columns and rows of the tables with all numbers."""
    found = [
        ("arms", _arm_columns(), tables.arms),
        ("organs", _score_columns(), tables.scores),
        ("comparisons", _comparison_columns(), tables.comparisons),
        ("runs", _run_columns(tables), tables.runs),
    ]
    if tables.curves is not None:
        found.append(("curve", *_curve_rows(tables.curves)))
    return found


def _write_rows(stem: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """CSV and parquet; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([row.get(column) for column in columns] for row in rows)
    stem.with_suffix(".csv").write_text(text.getvalue(), encoding="utf-8")
    schema = pa.schema([pa.field(column, _type(column)) for column in columns])
    pq.write_table(pa.Table.from_pylist(list(rows), schema), stem.with_suffix(".parquet"))


def _type(column: str) -> pa.DataType:
    if column == "headline":
        return pa.bool_()
    if column in WHOLE:
        return pa.int64()
    words = column in WORDS or column.endswith(("_verdict", "_reason"))
    return pa.string() if words else pa.float64()


def _arm_columns() -> list[str]:
    columns = ["row", "kind", "runs", "planned", "seeds", "draws", "folds"]
    for score in SHOWN:
        columns += [f"{score}_{name}" for name in ESTIMATED]
        if score in PUBLISHED:
            columns += [f"{score}_{n}" for n in ("published", "difference", "verdict", "reason")]
        columns.append(f"{score}_strict")
    return [*columns, "over", "convention", *FACTS, "split", "device", "note", "source"]


def _score_columns() -> list[str]:
    about = ["arm", "convention", "headline", "organ", "score", "unit"]
    values = [*ESTIMATED, "over", "runs", "cases"]
    return [*about, *values, "published", "difference", "verdict", "reason"]


def _comparison_columns() -> list[str]:
    about = ["arm", "reference", "convention", "organ", "score", "unit"]
    return [*about, "difference", "low", "high", "p", "p_holm", "over", "pairs", "cases"]


def _run_columns(tables: Tables) -> list[str]:
    scores = [*SHOWN, *(f"{score}_strict" for score in SHOWN)]
    organs = [f"dice {organ}" for organ in tables.organs]
    about = ["run", "arm", "draw", "seed", "fold", "state", "convention"]
    return [*about, *scores, *organs, "device", "split"]


def _curve_rows(curves: Curves) -> tuple[list[str], list[dict[str, Any]]]:
    rows = [
        {"of": curve.of or None}
        | {name: None if value != value else value for name, value in asdict(point).items()}
        for curve in curves.each
        for point in curve.points
    ]
    rounded = [{n: round(v, 6) if isinstance(v, float) else v for n, v in r.items()} for r in rows]
    return ["of", *(field.name for field in fields(Point))], rounded

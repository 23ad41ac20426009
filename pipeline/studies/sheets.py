"""A study's tables as people read them: cells of text, for the terminal, Markdown, LaTeX and pages.

Columns that are empty throughout are left out.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.scoring.bootstrap import FEWEST
from pipeline.scoring.conventions import STRICT
from pipeline.scoring.sheet import NONE, Sheet, number
from pipeline.scoring.tables import OVERALL
from pipeline.studies.curve import Curve
from pipeline.studies.tables import SHOWN, Row, Tables
from pipeline.studies.verdict import CANNOT_SAY, FEWEST_SEEDS
from pipeline.studies.words import FACTS, fact

MOST_VALUES = 4  # in one cell
# score to name and title of the sheet of its organs
OF_ORGANS = {
    "dice": ("organs", "Dice of each organ, %"),
    "hd95_voxels": ("organs_hd95", "HD95 of each organ, voxels"),
}


def sheets(tables: Tables) -> list[Sheet]:
    """All sheets of a study that have anything to say, in the order in which they are read."""
    found = [
        _arms(tables),
        *(_organs(tables, score) for score in OF_ORGANS),
        _comparisons(tables),
        _curves(tables),
        _settings(tables),
        _runs(tables),
    ]
    return [sheet.without_empty() for sheet in found if sheet is not None and sheet.rows]


def interval(row: Mapping[str, Any], prefix: str, digits: int, sign: bool = False) -> str:
    """Low to high."""
    low, high = row.get(f"{prefix}low"), row.get(f"{prefix}high")
    if low is None or high is None:
        return NONE
    return f"{number(low, digits, sign)} to {number(high, digits, sign)}"


def p_value(value: float | None) -> str:
    """To three digits; what is below 0.001 as such."""
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _arms(tables: Tables) -> Sheet:
    header = (
        *("arm", "Dice, %", "sd seeds", "sd draws", "sd folds", "95% interval", "published"),
        *(
            "difference",
            "verdict",
            "HD95, voxels",
            "HD95 published",
            "HD95, mm",
            "Dice strict, %",
            "runs",
        ),
    )
    rows = []
    for row in tables.arms:
        rows.append(
            (
                _label(row),
                number(row.get("dice_mean"), 2),
                number(row.get("dice_sd_seeds"), 2),
                number(row.get("dice_sd_draws"), 2),
                number(row.get("dice_sd_folds"), 2),
                interval(row, "dice_", 2),
                number(row.get("dice_published"), 2),
                number(row.get("dice_difference"), 2, sign=True),
                row.get("dice_verdict") or NONE,
                number(row.get("hd95_voxels_mean"), 2),
                number(row.get("hd95_voxels_published"), 2),
                number(row.get("hd95_mm_mean"), 2),
                number(row.get("dice_strict"), 2),
                f"{row['runs']}/{row['planned']}" if row["kind"] == "arm" else NONE,
            )
        )
    quoted = [place for place, row in enumerate(tables.arms) if row["kind"] == "quoted"]
    return Sheet(
        "arms",
        f"{tables.study.folder}: {tables.study.file.title}",
        header,
        tuple(rows),
        frozenset(quoted[:1]),
        tuple(_arm_notes(tables)),
    )


def _label(row: Row) -> str:
    return f"{row['row']} ({row['note']})" if row.get("note") else str(row["row"])


def _arm_notes(tables: Tables) -> Iterable[str]:
    """The notes, why verdicts can't be said, and where quoted rows are from."""
    yield from tables.notes
    for row in tables.arms:
        if row.get("dice_verdict") == CANNOT_SAY:
            yield f"{row['row']}: {CANNOT_SAY}: {row['dice_reason']}."
    by_source: dict[str, list[str]] = {}
    for row in tables.arms:
        if row["kind"] == "quoted":
            by_source.setdefault(row["source"], []).append(row["row"])
    for source, names in by_source.items():
        yield f"{', '.join(names)}: quoted from {source}."
    done = [row for row in tables.scores if row["organ"] == OVERALL and row["headline"]]
    if done and any(row["low"] is None for row in done if row["score"] == "dice"):
        yield f"No interval where fewer than {FEWEST} test cases count."
    if over := dict.fromkeys(row["over"] for row in done if row["low"] is not None):
        yield f"Intervals are over {' or '.join(over)} (docs/studies.md)."
    if done and tables.study.folds:
        yield f"Each case is tested in one of {tables.study.folds} folds; means are over all cases."


def _organs(tables: Tables, score: str) -> Sheet:
    """A row an arm; below it `strict`, where that differs, and what was published."""
    names = (*tables.organs, OVERALL)
    rows: list[tuple[str, ...]] = []
    sections = []
    for arm in tables.study.file.arms:
        of_arm = [row for row in tables.scores if row["arm"] == arm and row["score"] == score]
        found = {row["organ"]: row for row in of_arm if row["headline"]}
        strict = {row["organ"]: row for row in of_arm if row["convention"] == STRICT}
        if not found:
            continue
        sections.append(len(rows))
        rows.append((arm, *(_mean_and_sd(found[name]) for name in names)))
        if any(strict[name]["mean"] != found[name]["mean"] for name in names):
            rows.append((f"{arm}, {STRICT}", *(_mean_and_sd(strict[name]) for name in names)))
        if any(found[name]["published"] is not None for name in tables.organs):
            numbers = [found[name]["published"] for name in names]
            rows.append((f"{arm}, published", *(number(n, 2) for n in numbers)))
    ruled = frozenset(sections[1:]) if len(rows) > len(sections) else frozenset[int]()
    name, title = OF_ORGANS[score]
    spread = any("±" in cell for row in rows for cell in row)
    notes = ("Mean ± sd over seeds.",) if spread else ()
    return Sheet(name, title, ("arm", *tables.organs, "mean"), tuple(rows), ruled, notes)


def _mean_and_sd(row: Row) -> str:
    mean = number(row["mean"], 2)
    return mean if row["sd_seeds"] is None else f"{mean} ± {number(row['sd_seeds'], 2)}"


def _comparisons(tables: Tables) -> Sheet | None:
    reference = tables.study.file.reference
    if reference is None:
        return None
    rows = []
    convention = next((row["convention"] for row in tables.comparisons), None)
    for arm in tables.study.file.arms:
        found = {
            row["score"]: row
            for row in tables.comparisons
            if row["arm"] == arm and row["organ"] == OVERALL and row["convention"] == convention
        }
        if not found:
            continue
        dice, hd95 = found["dice"], found["hd95_voxels"]
        rows.append(
            (
                arm,
                number(dice["difference"], 2, sign=True),
                interval(dice, "", 2, sign=True),
                p_value(dice["p"]),
                p_value(dice["p_holm"]),
                number(hd95["difference"], 2, sign=True),
                interval(hd95, "", 2, sign=True),
                p_value(hd95["p_holm"]),
                str(dice["pairs"]),
                str(dice["cases"]),
            )
        )
    header = (
        *("arm", "Dice, points", "95% interval", "p", "p, Holm", "HD95, voxels"),
        *("95% interval of HD95", "p of HD95, Holm", "pairs of runs", "cases"),
    )
    notes = ["Of runs with the same slices and seed, on the same cases."]
    if tables.study.folds:
        notes = ["Of folds with the same slices and seed, case by case."]
    if any(row["p"] is not None and row["pairs"] < FEWEST_SEEDS for row in tables.comparisons):
        notes.append(f"Fewer than {FEWEST_SEEDS} pairs of runs say little of other seeds.")
    return Sheet("comparisons", f"Minus {reference}", header, tuple(rows), notes=tuple(notes))


def _curves(tables: Tables) -> Sheet | None:
    curves = tables.curves
    if curves is None:
        return None
    rows = tuple(
        (
            point.arm,
            f"{point.x:g}",
            number(point.dice, 2),
            number(_known(point.fitted), 2),
            number(_known(point.at_twice), 2),
            _known_interval(point.low, point.high),
            number(_known(point.gain), 2, sign=True),
            _known_interval(point.gain_low, point.gain_high, sign=True),
        )
        for curve in curves.each
        for point in curve.points
    )
    header = (
        *("arm", curves.along, "Dice, %", "law, %", "at twice, %", "95% interval at twice"),
        *("gain of twice", "95% interval of the gain"),
    )
    notes = tuple(_law(curve) for curve in curves.each)
    return Sheet("curve", f"Dice along {curves.along}", header, rows, notes=notes)


def _law(curve: Curve) -> str:
    """The law of a curve, and what twice as many would give, in a sentence."""
    law = curve.law
    of = f"{curve.of}: " if curve.of else ""
    if law is None:
        return f"{of}What twice as many would give: cannot say ({curve.why})."
    return (
        f"{of}Dice = {law.ceiling:.2f} - {law.shortfall:.2f} * (x / {law.largest:g})^-"
        f"{law.power:.3f}, which explains {law.explained:.0%} of the variance between arms; "
        f"twice the largest would give {curve.points[-1].gain:+.2f} points."
    )


def _known_interval(low: float, high: float, sign: bool = False) -> str:
    return interval({"low": _known(low), "high": _known(high)}, "", 2, sign)


def _known(value: float) -> float | None:
    return None if value != value else value


def _settings(tables: Tables) -> Sheet:
    rows = tuple(
        (str(row["row"]), *(_several(name, row.get(name)) for name in FACTS))
        for row in tables.arms
        if row["kind"] == "arm" and row["runs"]
    )
    return Sheet("settings", "What was run", ("arm", *FACTS.values()), rows)


def _several(name: str, text: str | None) -> str:
    """Values of a fact, with commas between them; of many, such as splits' hashes, the first and
    how many."""
    values = [fact(name, value) for value in (text or NONE).split(", ")]
    if len(values) <= MOST_VALUES:
        return ", ".join(values)
    return f"{values[0]} and {len(values) - 1} more"


def _runs(tables: Tables) -> Sheet:
    rows = tuple(
        (
            row["run"],
            row["state"],
            *(number(row[score], 2) for score in SHOWN),
            number(row["dice_strict"], 2),
        )
        for row in tables.runs
    )
    header = ("run", "state", "Dice, %", "HD95, voxels", "HD95, mm", "Dice strict, %")
    return Sheet("runs", "Every run", header, rows)

"""A table as people read it: cells of text, for the terminal, Markdown, LaTeX and pages."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

NONE = "–"
# columns of words, which stand at the left
LEFT = {
    *("arm", "run", "state", "verdict", "organ"),
    *("model", "encoder", "tuned", "scored stage", "convention", "split", "device"),
}
SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "–": "--",
    "<": "$<$",
    ">": "$>$",
}


@dataclass(frozen=True)
class Sheet:
    """A table of text.

    Attributes:
        name: of its files.
        title: above it.
        header: of the columns.
        rows: cells, as many as the header has.
        sections: places of the rows that have a rule above them.
        notes: below it, one sentence each.
        bold: row and column of the cells that stand out.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sections: frozenset[int] = frozenset()
    notes: tuple[str, ...] = ()
    bold: frozenset[tuple[int, int]] = frozenset()

    def is_left(self, column: int) -> bool:
        """Whether a column holds words, which stand at the left."""
        return self.header[column] in LEFT

    def without_empty(self) -> "Sheet":
        """The sheet without columns that hold nothing, the first one apart."""
        kept = [
            column
            for column in range(len(self.header))
            if column == 0 or any(row[column] not in ("", NONE) for row in self.rows)
        ]
        return replace(
            self,
            header=_chosen(self.header, kept),
            rows=tuple(_chosen(row, kept) for row in self.rows),
            bold=frozenset((row, kept.index(n)) for row, n in self.bold if n in kept),
        )


def number(value: float | None, digits: int, sign: bool = False) -> str:
    """A number with so many digits after the point; a dash for None."""
    if value is None:
        return NONE
    shown = f"{value:{'+' if sign else ''}.{digits}f}"
    return shown.replace("-", "+") if float(shown) == 0 and sign else shown


def markdown(sheet: Sheet) -> str:
    """A heading, the table, its notes."""
    lines = [f"### {sheet.title}", "", _pipes(map(_literal, sheet.header))]
    lines.append(_pipes("---" if sheet.is_left(n) else "---:" for n in range(len(sheet.header))))
    for place, row in enumerate(sheet.rows):
        cells = map(_literal, row)
        lines.append(
            _pipes(
                f"**{cell}**" if (place, column) in sheet.bold else cell
                for column, cell in enumerate(cells)
            )
        )
    for note in sheet.notes:
        lines += ["", note.replace("*", r"\*")]
    return "\n".join(lines) + "\n"


def latex(sheet: Sheet) -> str:
    """A tabular in booktabs' style; title and notes are comments."""
    columns = "".join("l" if sheet.is_left(n) else "r" for n in range(len(sheet.header)))
    lines = [f"% {sheet.title}; needs \\usepackage{{booktabs}}"]
    lines += [f"% {note}" for note in sheet.notes]
    header = _ampersands(map(_escaped, sheet.header))
    lines += [f"\\begin{{tabular}}{{{columns}}}", r"\toprule", header]
    lines.append(r"\midrule")
    for place, row in enumerate(sheet.rows):
        if place in sheet.sections:
            lines.append(r"\midrule")
        lines.append(
            _ampersands(
                f"\\textbf{{{_escaped(cell)}}}" if (place, column) in sheet.bold else _escaped(cell)
                for column, cell in enumerate(row)
            )
        )
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _chosen(cells: Sequence[str], columns: Sequence[int]) -> tuple[str, ...]:
    return tuple(cells[column] for column in columns)


def _literal(cell: str) -> str:
    return cell.replace("|", r"\|").replace("*", r"\*")


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return "".join(SPECIAL.get(character, character) for character in text)


def _ampersands(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"

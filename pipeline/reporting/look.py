"""How figures for papers look: width, font size, organs as fills or contours, marks.

A figure is printed at its own width, so that the font size is that of the printed page.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from pipeline.core.errors import UserError

Style = Literal["fill", "contour", "both"]
Marks = Literal["first", "all", "none"]

WIDTHS_MM = {"single": 85.0, "double": 180.0}  # of one column and of a whole page
NARROWEST_MM, WIDEST_MM = 40.0, 500.0
MM_PER_INCH, PT_PER_INCH = 25.4, 72.0
LINE = 1.25  # height of a line of text, in font sizes
FONT = "DejaVu Sans"  # comes with matplotlib: the same letters on every machine


@dataclass(frozen=True)
class Look:
    """What all figures of one call share.

    Attributes:
        width_mm: of the whole figure.
        font_pt: size of all its text.
        style: of organs: tinted, outlined, or both.
        marks: panels with a scale bar and the patient's sides: the first of each row and those
            that show another part than it, all, or none.
    """

    width_mm: float = WIDTHS_MM["double"]
    font_pt: float = 7.0
    style: Style = "both"
    marks: Marks = "first"

    @property
    def width(self) -> float:
        """Of the figure, inches."""
        return self.width_mm / MM_PER_INCH

    @property
    def line(self) -> float:
        """Height of a line of text, inches."""
        return LINE * self.font_pt / PT_PER_INCH

    def text_width(self, text: str) -> float:
        """Width of a text of one line, inches."""
        font = FontProperties(family=FONT, size=self.font_pt)
        points, *_ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
        return float(points) / PT_PER_INCH

    def wrapped(self, text: str, width: float) -> str:
        """A text in lines that are at most so many inches wide.

        It is broken at spaces and after "-", "_" and "/", a longer word anywhere; a no-break space
        is none.
        """
        lines = [""]
        for word in re.findall(r"[^ _/-]*[_/-]|[^ _/-]+| +", text):
            for part in self._parts(word, width):
                if lines[-1] and self.text_width((lines[-1] + part).rstrip()) > width:
                    lines.append("")
                lines[-1] = (lines[-1] + part).lstrip()
        return "\n".join(line.rstrip() for line in lines)

    def _parts(self, word: str, width: float) -> list[str]:
        """A word in pieces that fit."""
        if self.text_width(word) <= width:
            return [word]
        parts = [""]
        for letter in word:
            if parts[-1] and self.text_width(parts[-1] + letter) > width:
                parts.append("")
            parts[-1] += letter
        return parts

    def legend_columns(self, labels: Sequence[str]) -> int:
        """The most columns of a legend that fit into the figure's width, at least one."""
        for columns in range(len(labels), 1, -1):
            # handle, and the spaces behind handle and label, in font sizes; see `legend_options`
            beside = columns * (1 + 0.5 + 1.5) * self.font_pt / PT_PER_INCH
            short, longer = divmod(len(labels), columns)
            begins, widths = 0, 0.0
            for column in range(columns):
                ends = begins + short + (column < longer)
                widths += max(self.text_width(label) for label in labels[begins:ends])
                begins = ends
            if widths + beside <= self.width:
                return columns
        return 1


def legend_options(look: Look, labels: Sequence[str]) -> dict[str, object]:
    """Of a legend with these labels in as many columns as fit."""
    return {
        "ncols": look.legend_columns(labels),
        "fontsize": look.font_pt,
        "handlelength": 1.0,
        "handleheight": 1.0,
        "handletextpad": 0.5,
        "columnspacing": 1.5,
        "borderpad": 0.2,
        "borderaxespad": 0.2,
        "labelspacing": 0.3,
        "frameon": False,
    }


def parse_width(text: str) -> float:
    """The value of --width, mm.

    Raises:
        UserError: it is neither a known name nor a width that a page may have.
    """
    if text in WIDTHS_MM:
        return WIDTHS_MM[text]
    try:
        width = float(text)
    except ValueError:
        width = float("nan")
    if not NARROWEST_MM <= width <= WIDEST_MM:
        raise UserError(
            f"--width: expected {', '.join(f'{n} ({mm:g} mm)' for n, mm in WIDTHS_MM.items())} or "
            f"{NARROWEST_MM:g} to {WIDEST_MM:g} in mm, got {text}."
        )
    return width

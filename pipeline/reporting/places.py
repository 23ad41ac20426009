"""Addresses of the page's case browser, and plots whose dots lead there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from markupsafe import Markup

from pipeline.reporting import drawing


def place(case: str, **where: str | int) -> str:
    """The address of a case in the case browser.

    Args:
        case: its id.
        where: `slice`, or `organ` for the slice with its largest error; `model` and `beside`, the
            models to show.
    """
    return "#" + urlencode({"case": case, **where})


@dataclass(frozen=True)
class Dot:
    """A value of a case.

    Attributes:
        value: NaN: the plot leaves it out.
        place: its address in the case browser.
        words: what it says under the pointer.
    """

    value: float
    place: str
    words: str


def dot_plot(
    name: str,
    title: str,
    rows: Mapping[str, Sequence[Dot]],
    label: str,
    *,
    scale: drawing.Scale = "share",
    linked: bool = True,
) -> Markup:
    """A plot with a row for each group of cases, as a page shows it.

    Args:
        name: unique within the page.
        title: for screen readers.
        rows: label of the row to its dots.
        label: of the horizontal axis.
        scale: of that axis.
        linked: whether dots lead to the case browser.
    """
    values = {row: [dot.value for dot in dots] for row, dots in rows.items()}
    links = {row: [(dot.place, dot.words) for dot in dots] for row, dots in rows.items()}
    plot = drawing.strip_plot(name, values, label, links if linked else {}, scale)
    return Markup(drawing.named(plot, title, links=linked))

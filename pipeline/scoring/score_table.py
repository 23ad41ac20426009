"""The table of scores for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_scores(scores: Mapping[str, Any], title: str) -> None:
    """Print Dice and HD95 of each organ, their means, and what other conventions give.

    Args:
        scores: metrics.json of `hsam evaluate` or `hsam score`.
        title: above the table.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("organ")
    for name in ("Dice", "HD95, voxels", "HD95, mm"):
        table.add_column(name, justify="right")
    for organ in scores["dice"]:
        # Text, since an organ's name may look like markup
        table.add_row(Text(organ), *(_shown(scores[name].get(organ), d) for name, d in COLUMNS))
    table.add_section()
    table.add_row("mean", *_means(scores), style="bold")
    console = Console()
    console.print(table)
    console.print(Text(_note(scores)), soft_wrap=True)


COLUMNS = (("dice", 3), ("hd95_voxels", 2), ("hd95_mm", 2))


def _means(scores: Mapping[str, Any]) -> list[str]:
    return [_shown(scores.get(f"mean_{name}"), digits) for name, digits in COLUMNS]


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

"""How the help looks: commands in groups, whole sentences, plain words for types and ranges.

Plain text: Typer's own coloured boxes import Rich, which takes longer than all the rest.
"""

import re
from itertools import groupby
from typing import Any

from typer.core import TyperCommand, TyperGroup

# titles of the groups, in the order of the help
START = "From scans to a model"
STAGES, SCANS = "Stages, in their order", "Your own scans"
SCORES, HOUSE = "Scores and figures", "House-keeping"
GROUPS = (START, STAGES, SCANS, SCORES, HOUSE)

# what Typer writes of bounds, choices and described defaults, and how it reads here
WORDS = (
    (re.compile(r"(-?[\d.]+)<=x<=(-?[\d.]+)"), r"\1 to \2"),
    (re.compile(r"x>=(-?[\d.]+)"), r"\1 or more"),
    (re.compile(r"<([^<>]+)>"), r"\1"),
    (re.compile(r"default: \((.+)\)"), r"default: \1"),
)


class Groups(TyperGroup):
    """All commands: under the title of their group, with the first sentence of their help."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, group after group."""
        return sorted(self.commands, key=lambda name: GROUPS.index(self._group(name)))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the groups in their order."""
        width = max(map(len, self.commands))
        for title, names in groupby(self.list_commands(ctx), self._group):
            rows = []
            for name in names:
                sentence = (self.commands[name].help or "").partition("\n\n")[0]
                rows.append((name.ljust(width), " ".join(sentence.split())))
            with formatter.section(title):
                formatter.write_dl(rows)

    def _group(self, name: str) -> str:
        return str(getattr(self.commands[name], "rich_help_panel", None))


class Command(TyperCommand):
    """One command: its arguments and options in plain words, and an example."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options, their types in plain words."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                name, text = _plain(record[0]), _plain(record[1])
                if param.param_type_name == "argument":
                    sections["Arguments"].append((f"{param.metavar}...", text))
                else:
                    sections["Options"].append((name, text))
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the example as it is to be typed."""
        if self.epilog:
            with formatter.section("Example"):
                for line in self.epilog.splitlines():
                    formatter.write(f"{' ' * formatter.current_indent}{line}\n")


def _plain(text: str) -> str:
    for pattern, words in WORDS:
        text = pattern.sub(words, text)
    return text

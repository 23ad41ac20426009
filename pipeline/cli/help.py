"""How the help looks: commands in groups, whole sentences, plain words for types and ranges.

Plain text: Typer's own coloured boxes import Rich, which takes longer than all the rest.
"""

import re
from typing import Any

from typer.core import TyperCommand, TyperGroup

# what Typer writes of bounds, choices and described defaults, and how it reads here
WORDS = (
    (re.compile(r"(-?[\d.]+)<=x<=(-?[\d.]+)"), r"\1 to \2"),
    (re.compile(r"x>=(-?[\d.]+)"), r"\1 or more"),
    (re.compile(r"<([^<>]+)>"), r"\1"),
    (re.compile(r"default: \((.+)\)"), r"default: \1"),
)


class Groups(TyperGroup):
    """All commands: under the title of their group, with the first sentence of their help."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the groups in the order in which their first commands were declared."""
        groups: dict[str, list[tuple[str, str]]] = {}
        width = max(map(len, self.commands))
        for name, command in self.commands.items():
            sentence = (command.help or "").partition("\n\n")[0]
            rows = groups.setdefault(getattr(command, "rich_help_panel", None) or "Commands", [])
            rows.append((name.ljust(width), " ".join(sentence.split())))
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)


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

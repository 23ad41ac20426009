"""The page of commands, from the command line itself."""

from pathlib import Path

import typer.main

from pipeline.cli.app import app

HEAD = """# Commands

What `hsam COMMAND --help` says of each. Exit codes: 0, done; 1, some of it failed, as a table says;
2, a mistake in the command, the parameters or the data, in one sentence each; 130 and 143, stopped
by a signal.
"""


def write(path: Path) -> None:
    """Write the page, unless it says so already."""
    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="hsam")
    parts = [HEAD]
    for name in group.list_commands(context):
        parts.append(_command(group.get_command(context, name), name))
    text = "\n".join(parts)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _command(command: typer.core.TyperCommand, name: str) -> str:
    context = typer.Context(command, info_name=f"hsam {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    rows = [
        record
        for parameter in command.get_params(context)
        if (record := parameter.get_help_record(context)) is not None
    ]
    help_text = (command.help or "").replace("\b", "").strip()
    parts = [f"## hsam {name}\n", f"```\nhsam {name} {usage}\n```\n", f"{help_text}\n"]
    if rows:
        parts.append("| option | meaning |\n| --- | --- |")
        parts += [f"| `{_cell(option)}` | {_cell(meaning)} |" for option, meaning in rows]
        parts.append("")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")

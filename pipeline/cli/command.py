"""The Typer application, and the decorator by which a function becomes one of its commands."""

from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any

import typer

from pipeline.cli.help import Command, Groups

app = typer.Typer(
    cls=Groups,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def command(group: str, name: str, example: str) -> Callable[[Any], Any]:
    """Declare one: the title of its group, its name, a call of it to learn from."""
    return app.command(name, cls=Command, rich_help_panel=group, epilog=example)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hsam {metadata.version('hsam')}")
        raise typer.Exit


@app.callback()
def hsam(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    """H-SAM: from raw medical volumes to a segmentation model and a report."""

"""The commands that README and docs print, as the tools' own parsers take them."""

import re
import shlex
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
from dvc.cli import parse_args as parse_dvc
from snakemake import cli as snakemake
from typer.core import TyperCommand, TyperGroup

from pipeline.cli.app import app

ROOT = Path(__file__).parents[1]
GENERATED = ROOT / "docs" / "commands.md"
PAGES = [
    ROOT / "README.md",
    *sorted({*ROOT.glob("docs/*.md"), *ROOT.glob("config/*.md")} - {GENERATED}),
]
TOOLS = ("snakemake", "hsam", "dvc")
COMMAND = re.compile(rf"({'|'.join(TOOLS)}) \S")  # more space stands in pictures
STUDY_PAGES = re.compile(r"reports/([a-z0-9-]+)\.html")


def commands() -> list[str]:
    """Every command of a block of code, without its comment."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.removeprefix("$ ").split(" && "):
                    words = shlex.split(part, comments=True) if COMMAND.match(part) else []
                    if words and words[0] in TOOLS:
                        found.append(shlex.join(words))
    return list(dict.fromkeys(found))


def parse(tool: str, words: list[str]) -> None:
    if tool == "dvc":
        parse_dvc(words)
    elif tool == "snakemake":
        _, options = snakemake.parse_args(words)
        snakemake.parse_config(options.config)
    else:
        parse_hsam(typer.main.get_command(app), words)


def parse_hsam(command: TyperCommand | TyperGroup, words: list[str]) -> None:
    with command.make_context(command.name, list(words)) as context:
        # options of a group stand before the name of its command
        if isinstance(command, TyperGroup) and words:
            parse_hsam(command.get_command(context, words[0]) or pytest.fail(words[0]), words[1:])


@pytest.mark.parametrize("command", commands())
def test_a_printed_command_is_one_that_its_tool_takes(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    tool, *words = shlex.split(command)
    executor = re.search(r"profiles/(slurm|kubernetes)", command)
    if executor and find_spec(f"snakemake_executor_plugin_{executor[1]}") is None:
        pytest.skip(
            f"the plugin is not installed (pip install snakemake-executor-plugin-{executor[1]})"
        )
    try:
        parse(tool, words)
    except typer.BadParameter.__base__ as error:  # any mistake in a command
        pytest.fail(f"{command}: {error.format_message()}")
    except SystemExit as end:
        assert not end.code, command


def test_the_studies_that_are_printed_are_there():
    printed = {name for page in PAGES for name in STUDY_PAGES.findall(page.read_text())}
    there = {path.stem for path in ROOT.glob("workflow/studies/*.yaml")}
    assert printed - there <= {"report", "workflow"}

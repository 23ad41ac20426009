"""The documentation as a site: every page, link, anchor and docstring, without a warning."""

import subprocess
import sys
from pathlib import Path

import pytest

import hsam
from pipeline.cli.app import app

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    command = ["-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [sys.executable, *command, "-d", str(out / ".doctrees"), "docs", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_in_the_table_of_contents(site):
    index = (site / "index.html").read_text()
    for page in ROOT.glob("docs/*.md"):
        assert page.stem == "index" or f'href="{page.stem}.html"' in index, page


def test_every_command_and_every_name_of_the_library_is_there(site):
    commands = (site / "commands.html").read_text()
    for command in app.registered_commands:
        assert f'id="hsam-{command.name}"' in commands
    api = (site / "api.html").read_text()
    named = [name for name in hsam.__all__ if callable(getattr(hsam, name))]
    assert [name for name in named if f'id="hsam.{name}"' not in api] == []

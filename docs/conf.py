"""The documentation as a site: `make docs`."""

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import command_line  # noqa: E402

from hsam.version import __version__  # noqa: E402

project, author, release = "H-SAM", "the H-SAM authors", __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"H-SAM {__version__}"
myst_heading_anchors = 4  # as GitHub makes them
autodoc_member_order = "bysource"
# files of the repository that are no pages
OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)(?:#[^)]*)?\)")


def setup(app: Any) -> None:
    app.connect("builder-inited", lambda _: command_line.write(HERE / "commands.md"))
    app.connect("source-read", _name_files_outside)


def _name_files_outside(app: Any, page: str, source: list[str]) -> None:
    """Links to files beside the pages, which only the repository shows, become their names."""
    source[0] = OUTSIDE.sub(r"\1 (`\2`)", source[0])

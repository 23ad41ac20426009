"""The frame of every page: one HTML file, its style, scripts, plots and pictures inside it."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.core import files
from pipeline.core.home import ROOT

TEMPLATES = ROOT / "pipeline" / "reporting" / "templates"
STYLE, SCRIPT = "layout.css", "layout.js"
SHARED = ("layout.html.j2", "layout.macros.j2", STYLE, SCRIPT)


def render(template: str, content: Mapping[str, Any], scripts: Sequence[str] = ()) -> str:
    """A page's HTML.

    Args:
        template: name of the page's template, which extends `layout.html.j2`.
        content: the template's values.
        scripts: names of files beside the template that this page runs after the frame's own.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["unbroken"] = unbroken
    style = _as_it_is(STYLE)
    return environment.get_template(template).render(
        style=style, scripts=[_as_it_is(name) for name in (SCRIPT, *scripts)], **content
    )


def unbroken(text: str) -> Markup:
    """Text whose lines end between words alone: not after the hyphen or slash of an option, a path,
    a name or a number, where browsers break too.
    """
    return Markup(" ").join(
        Markup('<span class="unbroken">{}</span>').format(word) if {*word} & {*"-/"} else word
        for word in text.split()
    )


def _as_it_is(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def hashes(*names: str) -> dict[str, str]:
    """Name to SHA-256 of a page's own templates and scripts, and of what all pages share."""
    return {name: files.sha256(TEMPLATES / name) for name in (*names, *SHARED)}

"""Choices as parameters: nested blocks, and a file that says the reason beside each value."""

import io
from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from pipeline.planning.choices import Choice

COLUMN = 36  # of the reasons


def nested(choices: Sequence[Choice]) -> dict[str, Any]:
    """The choices as blocks, as `pipeline.core.params.load.validate` takes them."""
    result: dict[str, Any] = {}
    for choice in choices:
        *blocks, key = choice.key.split(".")
        place = result
        for block in blocks:
            place = place.setdefault(block, {})
        place[key] = choice.value
    return result


def text(choices: Sequence[Choice], head: Sequence[str]) -> str:
    """A parameter file.

    Args:
        choices: in the order of the file.
        head: lines above them.
    """
    document = CommentedMap()
    for choice in choices:
        *blocks, key = choice.key.split(".")
        place = document
        for block in blocks:
            place = place.setdefault(block, CommentedMap())
        place[key] = _flow(choice.value)
        place.yaml_add_eol_comment(choice.reason, key, column=COLUMN)
    return "".join(f"# {line}\n" for line in head) + _dumped(document)


def shown(value: Any) -> str:
    """A value as the file has it."""
    return _dumped(CommentedMap(value=_flow(value))).removeprefix("value:").strip()


def _dumped(document: CommentedMap) -> str:
    writer = YAML()
    writer.width = 4096
    writer.representer.add_representer(
        type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    content = io.StringIO()
    writer.dump(document, content)
    return content.getvalue()


def _flow(value: Any) -> Any:
    """A value in one line."""
    if isinstance(value, dict):
        result: Any = CommentedMap(value)
    elif isinstance(value, list):
        result = CommentedSeq(value)
    else:
        return value
    result.fa.set_flow_style()
    return result

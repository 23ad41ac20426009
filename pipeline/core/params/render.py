"""The parameters as text: commented YAML and JSON schema."""

import io
import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from pipeline.core.files import write_text
from pipeline.core.params.blocks import Block, Params, Percentile, Window
from pipeline.core.params.load import load


def schema() -> dict[str, Any]:
    """JSON schema of params.yaml; it sets no defaults."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Params.model_json_schema(),
    }


def schema_text() -> str:
    """The exact text of `workflow/schemas/params.schema.json`."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def render(params: Params) -> str:
    """The parameters as YAML, each key's meaning and unit as a comment behind it."""
    writer = YAML()
    writer.width = 200
    writer.indent(mapping=2, sequence=4, offset=2)
    writer.representer.add_representer(
        type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    document = _commented(params)
    for position, name in enumerate(type(params).model_fields):
        if position:
            document.yaml_set_comment_before_after_key(name, before="\n")
    text = io.StringIO()
    writer.dump(document, text)
    # ruamel writes "#" for the blank line that separates two blocks
    return "\n".join("" if line == "#" else line for line in text.getvalue().split("\n"))


def _commented(block: Block) -> CommentedMap:
    """A block as a YAML mapping, the description of each key behind its value."""
    result = CommentedMap()
    for name, field in type(block).model_fields.items():
        value = getattr(block, name)
        if isinstance(value, Block) and not isinstance(value, Window | Percentile):
            result[name] = _commented(value)
        else:
            plain = block.model_dump(include={name})[name]
            deep = isinstance(plain, dict) and any(isinstance(v, dict) for v in plain.values())
            result[name] = _lines(plain) if deep else _flow(plain)
        if field.description:
            result.yaml_add_eol_comment(field.description, name, column=32)
    return result


def _lines(value: dict[str, Any]) -> CommentedMap:
    """A mapping of mappings as YAML, a line each."""
    return CommentedMap({key: _flow(item) for key, item in value.items()})


def _flow(value: Any) -> Any:
    """A value as YAML; lists and mappings in one line, with brackets."""
    result: CommentedMap | CommentedSeq
    if isinstance(value, dict):
        result = CommentedMap({key: _flow(item) for key, item in value.items()})
    elif isinstance(value, list):
        result = CommentedSeq([_flow(item) for item in value])
    else:
        return value
    result.fa.set_flow_style()
    return result


def restore_comments(path: Path) -> None:
    """Rewrite a parameter file, values unchanged, with the comments that DVC's Hydra step drops."""
    text = render(load([path]))
    if Path(path).read_text(encoding="utf-8") != text:
        write_text(path, text)

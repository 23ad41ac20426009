"""`model.json`, the record of a saved model; read without PyTorch."""

import json
from pathlib import Path
from typing import Any

FORMAT = 1
JSON_NAME = "model.json"


def read_record(folder: str | Path) -> dict[str, Any]:
    """Read `model.json`: config, class names, intensity rule and provenance.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a format that this version can't read.
    """
    path = Path(folder) / JSON_NAME
    if not path.is_file():
        raise FileNotFoundError(f"model folder: expected {path}, found none")
    record: dict[str, Any] = json.loads(path.read_text())
    if record.get("format") != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, got {record.get('format')!r}")
    return record

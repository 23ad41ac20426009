"""`model.json`, the record of a saved model; read without PyTorch."""

import json
from pathlib import Path
from typing import Any

FORMAT = 1
JSON_NAME = "model.json"
# entries that loading needs
NEEDED = {"config": dict, "needs_sam_checkpoint": bool}


def read_record(folder: str | Path) -> dict[str, Any]:
    """Read `model.json`: config, class names, intensity rule and provenance.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a format that this version can't read, or a damaged file.
    """
    path = Path(folder) / JSON_NAME
    if not path.is_file():
        raise FileNotFoundError(f"model folder: expected {path}, found none")
    record: Any = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(record, dict):
        raise ValueError(f"{path}: expected a mapping, got {type(record).__name__}")
    if record.get("format") != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, got {record.get('format')!r}")
    if wrong := [name for name, kind in NEEDED.items() if not isinstance(record.get(name), kind)]:
        raise ValueError(f"{path}: expected {', '.join(wrong)}, got none")
    record.setdefault("sam_sha256", None)
    return record

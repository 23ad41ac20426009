"""`model.json`, the record of a saved model; read without PyTorch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hsam.backbones import known_by_sha256

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
    if not isinstance(record.setdefault("sam_sha256", None), str | None):
        raise ValueError(f"{path}: expected sam_sha256 as text, got {record['sam_sha256']!r}")
    if not _is_pretraining(record.setdefault("pretraining", None)):
        raise ValueError(f"{path}: expected pretraining with trained_on and may_have_seen")
    return record


def pretraining(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the encoder of a model had been trained on before.

    Args:
        record: of a model; of it `sam_sha256` is read, and `pretraining` where the file with this
            SHA-256 isn't a known one.

    Returns:
        trained_on: the images, in words; may_have_seen: data sets of whose test images some may be
        among them. None: its weights were random.
    """
    digest = record.get("sam_sha256")
    if digest is None:
        return None
    if (known := known_by_sha256(digest)) is not None:
        return {"trained_on": known[1].trained_on, "may_have_seen": list(known[1].may_have_seen)}
    unknown = {"trained_on": f"images that aren't known here (weights {digest[:12]})"}
    return record.get("pretraining") or unknown | {"may_have_seen": []}


def _is_pretraining(value: Any) -> bool:
    """Whether an entry is none, or as `pretraining` gives it."""
    return value is None or (
        isinstance(value, dict)
        and isinstance(value.get("trained_on"), str)
        and isinstance(value.get("may_have_seen"), list)
    )

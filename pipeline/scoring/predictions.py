"""A folder that another tool left its predictions in: label volumes, and what describes them."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.core import files
from pipeline.scoring.pairs import SUFFIXES, Source

DESCRIPTION = "dataset.json"  # what nnU-Net leaves beside its predictions


def digest_of(folder: Path, sources: Mapping[str, Source]) -> str:
    """SHA-256 over label volumes by their cases, and over the folder's description of labels.

    Raises:
        UserError: one can't be read.
    """
    paths = [
        path
        for source in sources.values()
        for path in ([source] if isinstance(source, Path) else source.values())
    ]
    described = [path] if (path := folder / DESCRIPTION).is_file() else []
    return files.digest([sorted(sources), files.sha256_of([*paths, *described])])


def files_in(folder: Path) -> list[Path]:
    """All label volumes in a folder and below it, and its description, sorted; none without it."""
    found = [path for path in folder.rglob("*") if path.name.lower().endswith(SUFFIXES)]
    return sorted([*found, *folder.glob(DESCRIPTION)])

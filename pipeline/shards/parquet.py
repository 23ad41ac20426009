"""Parquet files with a versioned description: writing it, checking it, naming damage."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.errors import UserError

VERSION = 1
KEY = b"hsam"


def with_metadata(schema: pa.Schema, about: Mapping[str, Any]) -> pa.Schema:
    text = json.dumps({"version": VERSION, **about}, sort_keys=True, allow_nan=False)
    return schema.with_metadata({KEY: text.encode()})


def open_file(path: Path, kind: str, fields: pa.Schema) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """A parquet file of this schema and its description."""
    if not path.is_file():
        raise UserError(f"{path}: there is no such {kind}; run the prepare stage first.")
    with reading(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        schema = file.schema_arrow
        about = json.loads((schema.metadata or {}).get(KEY, b"{}"))
    if about.get("kind") != kind or about.get("version") != VERSION:
        raise UserError(
            f"{path}: expected a {kind} of version {VERSION}, found {about.get('kind', 'another')} "
            f"file of version {about.get('version', 'none')}; run the prepare stage again."
        )
    if not schema.remove_metadata().equals(fields):
        raise UserError(f"{path}: its columns are not those of a {kind}; run prepare again.")
    return file, about


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what a damaged file makes the libraries raise into a sentence about the file."""
    try:
        yield
    # pyarrow's own errors are OSErrors and ValueErrors
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise damaged(path, " ".join(str(error).split())) from None


def damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: damaged ({reason}); delete it and run the prepare stage again.")

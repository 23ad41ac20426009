"""What the project's parquet files share: versioned metadata, and errors that name the file.

The metadata are JSON in the schema: the version, and what holds for the whole file.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.errors import UserError

VERSION = 1
KEY = b"hsam"  # of the JSON in the schema's metadata
PREPARE_AGAIN = "delete it and run the prepare stage again"


def with_metadata(schema: pa.Schema, metadata: Mapping[str, Any]) -> pa.Schema:
    """The schema with metadata, plain JSON values without NaN; the version is added."""
    text = json.dumps({"version": VERSION, **metadata}, sort_keys=True, allow_nan=False)
    return schema.with_metadata({KEY: text.encode()})


def open_file(path: Path, kind: str, fields: pa.Schema) -> tuple[pq.ParquetFile, dict[str, Any]]:
    """Open a file of the prepare stage.

    Args:
        path: the file.
        kind: "shard" or "manifest", as its metadata must say.
        fields: the columns that it must have.

    Returns:
        The open file, whose pages are checked as they are read, and its metadata.

    Raises:
        UserError: missing, damaged, of another kind or version, or with other columns.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such {kind}; run the prepare stage first.")
    with reading(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        schema = file.schema_arrow
        metadata = read_metadata(schema)
    if metadata.get("kind") != kind or metadata.get("version") != VERSION:
        found_kind, version = metadata.get("kind", "another"), metadata.get("version", "none")
        raise UserError(
            f"{path}: expected a {kind} of version {VERSION}, found {found_kind} file of version "
            f"{version}; run the prepare stage again."
        )
    if not schema.remove_metadata().equals(fields):
        raise UserError(f"{path}: its columns are not those of a {kind}; run prepare again.")
    return file, metadata


def read_metadata(schema: pa.Schema) -> dict[str, Any]:
    """The metadata of a file of this project; empty for a file of other software."""
    return json.loads((schema.metadata or {}).get(KEY, b"{}"))


@contextmanager
def reading(path: Path, remedy: str = PREPARE_AGAIN) -> Iterator[None]:
    """Turn the errors that the libraries raise over a damaged file into a UserError that names it.

    Args:
        path: the file that is read inside the block.
        remedy: what the message tells the user to do.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise damaged(path, " ".join(str(error).split()), remedy) from None


def damaged(path: Path, reason: str, remedy: str = PREPARE_AGAIN) -> UserError:
    """The error for a damaged file: the reason, and what to do."""
    return UserError(f"{path}: damaged ({reason}); {remedy}.")

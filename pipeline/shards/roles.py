"""The split as a file: a role for every slice, and a hash that identifies the split everywhere."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core.errors import UserError
from pipeline.core.files import atomic_path, digest
from pipeline.shards.parquet import VERSION, read_metadata, reading, with_metadata

ROLES = ("train", "validation", "test", "unused")
_FIELDS = pa.schema(
    [
        pa.field("case", pa.string(), nullable=False),
        pa.field("slice", pa.int32(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class SplitFile:
    """The role of every slice of a data set.

    Attributes:
        name: name of the data set.
        roles: (case, slice index) to role, sorted.
    """

    name: str
    roles: Mapping[tuple[str, int], str]

    @cached_property
    def hash(self) -> str:
        """SHA-256 over the data set's name, the slices and their roles."""
        rows = [[case, index, role] for (case, index), role in sorted(self.roles.items())]
        return digest({"name": self.name, "rows": rows})

    @cached_property
    def slices(self) -> dict[str, tuple[tuple[str, int], ...]]:
        """Role to (case, slice index) pairs, sorted; every role is there."""
        return {
            role: tuple(sorted(key for key, found in self.roles.items() if found == role))
            for role in ROLES
        }

    @cached_property
    def cases(self) -> dict[str, list[str]]:
        """Role to the cases that have slices in it, sorted."""
        return {role: sorted({case for case, _ in keys}) for role, keys in self.slices.items()}

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Role to its number of subjects and slices."""
        return {
            role: {"subjects": len(self.cases[role]), "slices": len(self.slices[role])}
            for role in ROLES
        }


def leaks(cases: Mapping[str, Iterable[str]]) -> list[str]:
    """Subjects that are tested on and learned from, one sentence each.

    Args:
        cases: role to the cases that have slices in it.
    """
    test = set(cases.get("test", ()))
    return [
        f"case {case} is in test and in {role}: a test subject must not be learned from."
        for role in ("train", "validation")
        for case in sorted(test & set(cases.get(role, ())))
    ]


def write_split(path: Path, split: SplitFile) -> None:
    """Write a split atomically; the same split gives the same bytes.

    Raises:
        UserError: a test subject is in training or validation.
    """
    _refuse_leaks(path, split)
    metadata = {"name": split.name, "hash": split.hash, "counts": split.counts}
    schema = with_metadata(_FIELDS, metadata)
    keys = sorted(split.roles)
    columns = {
        "case": [case for case, _ in keys],
        "slice": [index for _, index in keys],
        "role": [split.roles[key] for key in keys],
    }
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns, schema), temporary, compression="zstd")


def read_split(path: Path) -> SplitFile:
    """Read a split and check it against its hash.

    Raises:
        UserError: missing, damaged, changed, of another version, or with a test subject in
            training or validation.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; run the split stage first.")
    with reading(path, "run the split stage again"):
        table = pq.read_table(path)
        metadata = read_metadata(table.schema)
        version = metadata.get("version")
        if version != VERSION:
            raise UserError(
                f"{path}: expected a split of version {VERSION}, found {version or 'another file'};"
                " run the split stage again."
            )
        columns = table.select(["case", "slice", "role"]).to_pydict()
        keys = zip(columns["case"], columns["slice"], strict=True)
        split = SplitFile(metadata["name"], dict(zip(keys, columns["role"], strict=True)))
        written = metadata["hash"]
    if split.hash != written or len(split.roles) != table.num_rows:
        raise UserError(
            f"{path}: its rows don't have the hash {written[:12]} that it was written with; "
            "run the split stage again."
        )
    _refuse_leaks(path, split)
    return split


def check_slices(split: SplitFile, name: str, slices: Mapping[str, int], source: Path) -> None:
    """Check that a split was made for this prepared data set.

    Args:
        split: the split.
        name: name of the prepared data set.
        slices: case to its number of prepared slices.
        source: where the split lies, for the message.

    Raises:
        UserError: another data set, other cases or other numbers of slices; lists all of them.
    """
    in_split = Counter(case for case, _ in split.roles)
    problems = [
        f"{source}: the split {split.hash[:12]} has {in_split.get(case, 0)} slices of {case}, the "
        f"prepared data has {slices.get(case, 0)}; run the split stage again."
        for case in sorted(slices.keys() | in_split.keys())
        if in_split.get(case, 0) != slices.get(case, 0)
    ]
    if split.name != name:
        problems.append(
            f"{source}: the split {split.hash[:12]} is one of {split.name}, the prepared data is "
            f"{name}; run the split stage again."
        )
    if problems:
        raise UserError(problems)


def _refuse_leaks(path: Path, split: SplitFile) -> None:
    """UserError with all leaks of the split; `path` is the file for the messages."""
    found = leaks(split.cases)
    if found:
        raise UserError(f"{path}: {problem}" for problem in found)

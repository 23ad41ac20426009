"""Batches: cases that one job prepares, named by the first's and the last's place among all.

A batch such as 65-128 holds as many cases as every other but the last, so that a case that comes
behind all others changes the last batch alone.
"""

import re
from collections.abc import Mapping, Sequence

from pipeline.core.errors import UserError
from pipeline.datasets.base import RawCase

BATCH = re.compile(r"(?P<first>[1-9]\d*)-(?P<last>[1-9]\d*)")
# a job starts in seconds; so much of compressed CT takes a core about a minute
BATCH_BYTES = 2**30
MOST_CASES = 256


def batches(cases: Mapping[str, RawCase], size: int | None) -> dict[str, list[RawCase]]:
    """Batch to its cases.

    Args:
        cases: of the data set, in their order.
        size: cases a batch; None: by their number and the size of their files.
    """
    size = size or batch_size(cases)
    listed = list(cases.values())
    return {
        f"{start + 1}-{min(start + size, len(listed))}": listed[start : start + size]
        for start in range(0, len(listed), size)
    }


def batch_size(cases: Mapping[str, RawCase]) -> int:
    """Cases a batch, a power of two, so that files that change a little leave it as it is."""
    found = [path.stat().st_size for raw in cases.values() for path in raw.files if path.is_file()]
    mean = max(1, sum(found) // max(1, len(cases)))
    wanted = max(1, min(MOST_CASES, BATCH_BYTES // mean))
    return 1 << (wanted.bit_length() - 1)


def cases_of(batch: str, cases: Sequence[str]) -> list[str]:
    """The cases of a batch.

    Raises:
        UserError: not a batch, or not of these cases.
    """
    match = BATCH.fullmatch(batch)
    first, last = (int(match[1]), int(match[2])) if match else (1, 0)
    if not first <= last <= len(cases):
        raise UserError(
            f"--batch {batch}: expected the places of a first and a last case, such as "
            f"1-{len(cases)}, which are all."
        )
    return list(cases[first - 1 : last])

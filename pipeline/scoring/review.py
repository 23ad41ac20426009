"""Where to look first in a prediction: neighbouring slices of one organ, found without a truth.

Rows come in the order of the area that is expected to be wrong (`pipeline.scoring.uncertainty`).
No two rows have an organ on a slice in common.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.correlation import rank_correlation
from pipeline.scoring.uncertainty import ExpectedError, overlaps

FIRST = 20  # rows that are judged: about what a person looks through
MOST = FIRST  # rows a case: the first ones of all cases may be those of one
LONGEST = 7  # slices of a row: looked at in one go
NEIGHBOUR = 0.5  # least expected area of a neighbouring slice in a row, share of the row's largest

Areas = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Two masks of each organ on each slice, as sizes.

    Attributes:
        sizes: sum of the two masks' sizes, pixels, (slices, organs).
        shared: size of their intersection, likewise.
    """

    sizes: NDArray[np.int64]
    shared: NDArray[np.int64]

    @classmethod
    def of(cls, a: NDArray[np.integer], b: NDArray[np.integer], organs: int) -> "Pairs":
        """Those of two label arrays (slices, rows, columns); label k is the k-th organ."""
        found = [overlaps(one, other, organs) for one, other in zip(a, b, strict=True)]
        sizes, shared = (np.array(part).reshape(-1, organs) for part in zip(*found, strict=True))
        return cls(sizes, shared)

    @property
    def differing(self) -> NDArray[np.int64]:
        """Pixels that are in one of the masks only, (slices, organs)."""
        return self.sizes - 2 * self.shared


def review_rows(
    case: str,
    expected: ExpectedError,
    organs: Sequence[str],
    stages: Pairs | None = None,
    truth: Pairs | None = None,
) -> list[dict[str, Any]]:
    """The rows of one case, the largest expected area first, at most MOST.

    A row begins at the slice with the largest area that is in no row yet, and takes in the larger
    of its two neighbours while that has at least the share NEIGHBOUR of it, up to LONGEST slices.

    Args:
        case: its id.
        expected: what is expected to be wrong in it.
        organs: names.
        stages: the two stages' masks; None: a model of one.
        truth: the masks of truth and prediction; None: no truth is known.

    Returns:
        case, organ; slice (that of the largest area), first, last; row and column of the middle of
        that slice's doubt; expected_mm2 of the row;
        disagreement (1 - Dice of the stages' masks over the row, None for one stage); with a
        truth, error_mm2 (true area) and dice (None where neither mask has a pixel).
    """
    rows = []
    pixel_mm2 = math.prod(expected.pixel_mm)
    for column, organ in enumerate(organs):
        for peak, first, last in _spans(expected.mm2[:, column]):
            place = expected.places[peak, column].tolist()
            part = (slice(first, last + 1), column)
            row = {
                "case": case,
                "organ": organ,
                "slice": peak,
                "first": first,
                "last": last,
                "row": place[0],
                "column": place[1],
                "expected_mm2": float(expected.mm2[part].sum()),
                "disagreement": None if stages is None else _disagreement(stages, part),
            }
            if truth is not None:
                wrong = _disagreement(truth, part)
                row["error_mm2"] = float(truth.differing[part].sum() * pixel_mm2)
                row["dice"] = None if wrong is None else 1 - wrong
            rows.append(row)
    return in_order(rows)[:MOST]


def in_order(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of several cases, the largest expected area first."""
    return sorted(
        rows, key=lambda row: (-row["expected_mm2"], row["case"], row["first"], row["organ"])
    )


def row_errors(expected_mm2: Areas, error_mm2: Areas) -> list[float]:
    """True area of every row of a case, of any rank, the largest expected area first.

    With the true area as the expected one, these are the rows of an ideal list.

    Args:
        expected_mm2: what makes and orders the rows, (slices, organs).
        error_mm2: the true area, likewise.
    """
    found = [
        (float(expected_mm2[first : last + 1, organ].sum()), first, organ, last)
        for organ in range(expected_mm2.shape[1])
        for _, first, last in _spans(expected_mm2[:, organ])
    ]
    found.sort(key=lambda row: (-row[0], *row[1:]))
    return [float(error_mm2[first : last + 1, organ].sum()) for _, first, organ, last in found]


def quality(
    rows: Sequence[Mapping[str, Any]],
    expected_mm2: Areas,
    error_mm2: Areas,
    every_mm2: Sequence[float],
    ideal_mm2: Sequence[float],
) -> dict[str, Any]:
    """How much of the true error the list finds.

    Args:
        rows: the list, with `error_mm2`.
        expected_mm2, error_mm2: of every pair of organ and slice that truth or prediction shows or
            that is expected to be wrong, of all cases, (pairs,).
        every_mm2: true area of every row of all cases, also of those that the list leaves out.
        ideal_mm2: the same of ideal lists, in any order.

    Returns:
        rows, pairs: how many; found_in_first: share of the true error in the FIRST rows; random:
        that of as many of all rows in random order, on average; ideal: that of the ideal list;
        of_ideal: found_in_first as a share of it; looked_at: share of the pairs in these rows;
        spearman: rank correlation of expected and true area. A number that isn't defined has no
        entry.
    """
    result: dict[str, Any] = {"rows": len(rows), "pairs": len(expected_mm2)}
    first, whole = rows[:FIRST], float(error_mm2.sum())
    if whole > 0:
        found = sum(row["error_mm2"] for row in first)
        ideal = sum(sorted(ideal_mm2, reverse=True)[:FIRST])
        drawn = min(FIRST, len(every_mm2)) / max(1, len(every_mm2))
        result |= {
            "found_in_first": found / whole,
            "random": drawn * sum(every_mm2) / whole,
            "ideal": ideal / whole,
            "of_ideal": found / ideal,
        }
        pairs = sum(row["last"] - row["first"] + 1 for row in first)
        result["looked_at"] = pairs / len(expected_mm2)
    correlation = rank_correlation(expected_mm2.tolist(), error_mm2.tolist())
    return result if correlation is None else result | {"spearman": correlation}


def sentence(review: Mapping[str, Any]) -> str:
    """How much of the true error the first rows hold, for people; of `quality`'s numbers."""
    if "found_in_first" not in review:
        return "the prediction has no error to be found"
    text = (
        f"the first {min(FIRST, review['rows'])} rows hold {review['found_in_first']:.1%} of the "
        "true error area"
    )
    if "ideal" in review:  # metrics of earlier versions have none
        text += (
            f"; rows in random order would hold {review['random']:.1%}, those of an ideal list "
            f"{review['ideal']:.1%}"
        )
    return text


def _spans(areas: Areas) -> Iterable[tuple[int, int, int]]:
    """Slice of the largest area, first and last slice of each row of one organ."""
    free = areas > 0
    for peak in np.argsort(-areas, kind="stable").tolist():
        if not free[peak]:
            continue
        wanted = free & (areas >= NEIGHBOUR * areas[peak])
        first = last = peak
        while last - first + 1 < LONGEST:
            beside = [place for place in (first - 1, last + 1) if 0 <= place < len(areas)]
            beside = [place for place in beside if wanted[place]]
            if not beside:
                break
            taken = max(beside, key=areas.__getitem__)
            first, last = min(first, taken), max(last, taken)
        free[first : last + 1] = False
        yield peak, first, last


def _disagreement(pairs: Pairs, part: tuple[slice, int]) -> float | None:
    """1 - Dice of two masks over some slices; None where both are empty."""
    sizes = int(pairs.sizes[part].sum())
    return float(pairs.differing[part].sum()) / sizes if sizes else None

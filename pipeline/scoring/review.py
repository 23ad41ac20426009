"""Where to look first in a prediction: neighbouring slices of one organ, found without a truth.

Rows come in the order of the area that is expected to be wrong. Of a model of two stages that is
the area on which the stages differ; of one stage, the area that its probabilities leave open.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.disagreement import overlaps, rank_correlation

MOST = 10  # rows a case
FIRST = 20  # rows that are judged: about what a person looks through
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


def uncertain_pixels(
    labels: NDArray[np.integer], probabilities: NDArray[np.integer], steps: int
) -> Areas:
    """How many pixels of each organ's mask are expected to be wrong, by the probabilities.

    Args:
        labels: chosen classes (slices, rows, columns).
        probabilities: of each class, background first, (classes, slices, rows, columns), in
            steps of 1 / `steps`.
        steps: see there.

    Returns:
        (slices, organs): the sum of 1 - p inside the mask and of p outside.
    """
    result = []
    for label, shares in enumerate(probabilities[1:], 1):
        inside = labels == label
        wrong = np.where(inside, steps - shares.astype(np.int64), shares)
        result.append(wrong.sum(axis=(1, 2)) / steps)
    return np.stack(result, axis=1)


def review_rows(
    case: str,
    expected_mm2: Areas,
    organs: Sequence[str],
    stages: Pairs | None = None,
    truth: Pairs | None = None,
    pixel_mm2: float = 1.0,
) -> list[dict[str, Any]]:
    """The rows of one case, the largest expected area first, at most MOST.

    A row begins at the slice with the largest area that is in no row yet, and takes in the larger
    of its two neighbours while that has at least the share NEIGHBOUR of it, up to LONGEST slices.

    Args:
        case: its id.
        expected_mm2: area that is expected to be wrong, (slices, organs).
        organs: names.
        stages: the two stages' masks; None: a model of one.
        truth: the masks of truth and prediction; None: no truth is known.
        pixel_mm2: area of a pixel.

    Returns:
        case, organ; slice (that of the largest area), first, last; expected_mm2 of the row;
        disagreement (1 - Dice of the stages' masks over the row, None for one stage); with a
        truth, error_mm2 (true area) and dice (None where neither mask has a pixel).
    """
    rows = []
    for column, organ in enumerate(organs):
        for peak, first, last in _spans(expected_mm2[:, column]):
            part = (slice(first, last + 1), column)
            row = {
                "case": case,
                "organ": organ,
                "slice": peak,
                "first": first,
                "last": last,
                "expected_mm2": float(expected_mm2[part].sum()),
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


def quality(
    rows: Sequence[Mapping[str, Any]], expected_mm2: Areas, error_mm2: Areas
) -> dict[str, Any]:
    """How much of the true error the list finds.

    Args:
        rows: the list, with `error_mm2`.
        expected_mm2, error_mm2: of every pair of organ and slice that truth or prediction shows or
            that is expected to be wrong, of all cases, (pairs,).

    Returns:
        rows, pairs: how many; found_in_first: share of the true error in the FIRST rows;
        looked_at: share of the pairs in these rows, which a random choice of as many pairs would
        find on average; spearman: rank correlation of expected and true area. A number that isn't
        defined has no entry.
    """
    result: dict[str, Any] = {"rows": len(rows), "pairs": len(expected_mm2)}
    first = rows[:FIRST]
    if error_mm2.sum() > 0:
        result["found_in_first"] = sum(row["error_mm2"] for row in first) / float(error_mm2.sum())
        pairs = sum(row["last"] - row["first"] + 1 for row in first)
        result["looked_at"] = pairs / len(expected_mm2)
    correlation = rank_correlation(expected_mm2.tolist(), error_mm2.tolist())
    return result if correlation is None else result | {"spearman": correlation}


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

"""What of a case can be shown on a page: how its intensities are spread, and one of its slices."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.params.blocks import Percentile, Window
from pipeline.imaging.display import shown, shown_spacing, sides
from pipeline.imaging.geometry import PLANES, slices_view
from pipeline.imaging.intensity import to_unit
from pipeline.imaging.volumes import Volume

BINS = 64
MOST_VOXELS = (
    2_000_000  # of a volume that its histogram counts; of more, every n-th along each axis
)
LONGEST, SHORTEST = 160, 64  # pixels, of a slice's longer side: the fewer, the more cases there are
FULL = 60  # cases up to which slices have LONGEST


@dataclass(frozen=True, eq=False)
class Sketch:
    """A case at a glance.

    Attributes:
        low, high: where the histograms begin and end, in source units: percentiles 0.5 and 99.5,
            of the volume or of its organs, whichever lie farther out. What lies beyond is counted
            in the first and the last bin.
        whole, labelled: (BINS,), shares of the volume's and of the organs' voxels; of a case
            without organs the second are 0.
        image: (rows, columns) uint8, the slice on which the organs show best, as the data set's
            rule scales it, in the radiological display, pixels square.
        classes: the same slice's class indices.
        plane: of the slice, and the letters of its left and right edge, such as "axial, R L".
    """

    low: float
    high: float
    whole: NDArray[np.float64]
    labelled: NDArray[np.float64]
    image: NDArray[np.uint8]
    classes: NDArray[np.uint8]
    plane: str


def longest_side(cases: int) -> int:
    """Pixels of a slice's longer side where so many cases are shown on one page."""
    return max(SHORTEST, min(LONGEST, round(LONGEST * (FULL / max(cases, 1)) ** 0.5)))


def sketch(
    image: Volume,
    classes: NDArray[np.uint8],
    facts: Mapping[str, Any],
    axes: str,
    rule: Window | Percentile,
    longest: int,
) -> Sketch:
    """The sketch of a case.

    Args:
        image: (x, y, z) in source order.
        classes: (x, y, z), class indices.
        facts: of the case, as `pipeline.planning.survey.Survey.cases` has them.
        axes: of the slices.
        rule: how the data set maps intensities to grey.
        longest: side of the picture, pixels; a slice of fewer stays as it is.
    """
    percentiles, inside = facts["percentiles"], facts["labelled"]
    low = min(percentiles["0.5%"], inside.get("0.5%", np.inf))
    high = max(percentiles["99.5%"], inside.get("99.5%", -np.inf))
    high = high if high > low else low + 1.0
    step = max(1, round((image.array.size / MOST_VOXELS) ** (1 / 3)))
    voxels = image.array[::step, ::step, ::step]
    organ = classes[::step, ::step, ::step] > 0
    best = _best_slice(slices_view(classes, image.geometry, axes))
    picture = slices_view(image.array, image.geometry, axes)[best]
    spacing = image.geometry.sliced_spacing(axes)
    grey = (rule.low, rule.high) if rule.kind == "window" else (percentiles["0.5%"], high)
    unit = to_unit(picture.astype(np.float32), grey[0], max(grey[1], grey[0] + 1e-6))
    pixels, labels = _square(
        shown(unit, axes),
        shown(slices_view(classes, image.geometry, axes)[best], axes),
        shown_spacing(spacing, axes)[1:],
        longest,
    )
    return Sketch(
        low,
        high,
        _shares(voxels, low, high),
        _shares(voxels[organ], low, high),
        np.round(pixels * 255).astype(np.uint8),
        labels,
        f"{PLANES[axes[0]]}, {' '.join(sides(axes))}",
    )


def _shares(values: NDArray[Any], low: float, high: float) -> NDArray[np.float64]:
    """Share of the values in each of BINS bins from low to high."""
    counts, _ = np.histogram(np.clip(values, low, high), BINS, (low, high))
    return counts / max(1, counts.sum())


def _best_slice(classes: NDArray[np.uint8]) -> int:
    """The slice on which most organs show much of their largest area; the middle one if none do."""
    areas = np.array([np.bincount(part.ravel(), minlength=256)[1:] for part in classes])
    largest = areas.max(axis=0)
    if not largest.any():
        return len(classes) // 2
    there = largest > 0
    return int((areas[:, there] / largest[there]).sum(axis=1).argmax())


def _square(
    image: NDArray[np.float32],
    classes: NDArray[np.uint8],
    spacing_mm: tuple[float, ...],
    longest: int,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A slice and its labels with square pixels, the longer side at most so many of them."""
    sides_mm = [side * mm for side, mm in zip(image.shape, spacing_mm, strict=True)]
    pixel = max(min(spacing_mm), max(sides_mm) / longest)
    rows, columns = (max(1, round(side / pixel)) for side in sides_mm)
    nearest = [
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip((rows, columns), image.shape, strict=True)
    ]
    smooth = _overlaps(rows, image.shape[0]) @ image @ _overlaps(columns, image.shape[1]).T
    return smooth.astype(np.float32), classes[np.ix_(*nearest)]


def _overlaps(new: int, old: int) -> NDArray[np.float32]:
    """(new, old): the share of each of `old` pixels in each of `new` ones over the same length."""
    edges = np.arange(new + 1) * old / new
    starts, ends = edges[:-1, None], edges[1:, None]
    pixels = np.arange(old)[None]
    shares = np.clip(np.minimum(ends, pixels + 1) - np.maximum(starts, pixels), 0, None)
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)

"""What a model's training slices look like: ranges that are kept with the model.

Few-shot training sees some slices of each volume, so that ranges are those of slices: area,
position, brightness and wholeness of each organ where it is shown. Positions are distances from the
centre of a slice's brightness, which hardly depends on how a scan is cropped. Volumes are
estimated, as if the labelled slices stood for the others. Of the stack of slices its length counts,
which organs follow each other in every case, how much of an organ lies apart from the rest, and how
brightness changes along it. Of several channels the first one is measured, and of the others their
mean over a scan, which tells where channels were interchanged.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

# of an organ in a slice: mm2, mm from the centre of brightness, mean in [0, 1], share of its
# largest piece
MEASURES = ("area_mm2", "row_mm", "column_mm", "brightness", "largest_piece")
# of a scan: mm, mean in [0, 1]
SCAN = ("gap_mm", "pixel_mm", "height_mm", "width_mm", "mean")
# absent in models of earlier versions: of the stack, beside these; of an organ, beside MEASURES
LENGTH, STRAY = "length_mm", "stray"
# of a slice, whose course along the stack tells its direction: mean, share of pixels brighter than
# half of the range, row of the centre of brightness as a share of the height
COURSE = ("mean", "bright", "centre")
COURSES = "course"  # in the record, where it tells the direction in every training case
POINTS = 16  # of a course, evenly spread over the stack
BINS = 32  # of the histogram of a scan's brightness over [0, 1]
ORDERED = 3  # training cases from which on an order of two organs is told


class Tally:
    """Measures the slices of one case, one at a time.

    Args:
        organs: number of organs; label k is organ k.
        spacing: voxel sides along slice, row and column, mm.
    """

    def __init__(self, organs: int, spacing: Sequence[float]) -> None:
        self.organs, self.spacing = organs, tuple(spacing)
        self._rows: list[NDArray[np.float64]] = []
        self._scan: list[tuple[float, ...]] = []
        self._other_means: list[list[float]] = []
        self._places: list[int] = []
        self._course: list[tuple[float, float, float]] = []
        self._histograms: list[NDArray[np.float64]] = []

    def add(
        self, image: NDArray[np.floating], labels: NDArray[np.uint8], place: int | None = None
    ) -> None:
        """Measure a slice.

        Args:
            image: (H, W), or (C, H, W) of several channels, in [0, 1].
            labels: (H, W), 0 to the number of organs.
            place: index of the slice in its volume; None: the one after the last.
        """
        image, *others = (image,) if image.ndim == 2 else image
        last = self._places[-1] if self._places else -1
        self._places.append(last + 1 if place is None else place)
        counts, _ = np.histogram(image, BINS, (0, 1))
        self._histograms.append(counts / max(1, counts.sum()))
        self._other_means.append([float(other.mean()) for other in others])
        _, row_mm, column_mm = self.spacing
        height, width = image.shape
        middle = _centre(image)
        self._course.append((float(image.mean()), float((image > 0.5).mean()), middle[0] / height))
        self._scan.append(
            (self.spacing[0], row_mm, height * row_mm, width * column_mm, float(image.mean()))
        )
        found = np.full((self.organs, len(MEASURES)), np.nan)
        present = [organ for organ in np.unique(labels) if 0 < organ <= self.organs]
        if present:
            boxes = ndimage.find_objects(labels, self.organs)
            for organ in present:
                rows, columns = boxes[organ - 1]
                mask = labels[rows, columns] == organ
                centre = np.array(ndimage.center_of_mass(mask)) + (rows.start, columns.start)
                found[organ - 1] = (
                    mask.sum() * row_mm * column_mm,
                    *((centre - middle) * (row_mm, column_mm)),
                    image[rows, columns][mask].mean(),
                    _largest_piece(mask),
                )
        self._rows.append(found)

    @property
    def slices(self) -> NDArray[np.float64]:
        """(slices, organs, MEASURES), NaN where an organ isn't shown."""
        return np.stack(self._rows) if self._rows else np.empty((0, self.organs, len(MEASURES)))

    @property
    def scan(self) -> NDArray[np.float64]:
        """SCAN, the mean over the slices."""
        return np.mean(self._scan, axis=0)

    @property
    def other_means(self) -> NDArray[np.float64]:
        """(C - 1,), the mean of each channel but the first."""
        return np.mean(self._other_means, axis=0)

    @property
    def histogram(self) -> NDArray[np.float64]:
        """(BINS,), shares of the pixels, the mean over the slices."""
        return np.mean(self._histograms, axis=0)

    def course(self, total: int) -> NDArray[np.float64]:
        """(COURSE, POINTS), how the slices change along a stack of `total` ones, the mean off."""
        order = np.argsort(self._places)
        at = (np.array(self._places)[order] + 0.5) / total
        points = (np.arange(POINTS) + 0.5) / POINTS
        lines = [np.interp(points, at, values) for values in np.array(self._course)[order].T]
        found: NDArray[np.float64] = np.array(lines) - np.mean(lines, axis=1, keepdims=True)
        return found

    @property
    def along_mm(self) -> NDArray[np.float64]:
        """(organs,), each organ's place along the slices, mm; NaN of one that isn't shown."""
        area = np.nan_to_num(self.slices[:, :, 0])
        weight, places = area.sum(axis=0), np.array(self._places) @ area
        return self.spacing[0] * places / np.where(weight, weight, np.nan)

    def stray(self, least_mm: float = 0.0) -> NDArray[np.float64]:
        """Share of each organ's area that lies apart along the slices from its largest part.

        Args:
            least_mm: of slices without the organ between two parts; some slice of those that were
                added doesn't show it there in any case.

        Returns:
            (organs,), NaN of one that isn't shown.
        """
        order = np.argsort(self._places)
        places, areas = np.array(self._places)[order], np.nan_to_num(self.slices[order, :, 0])
        found = np.full(self.organs, np.nan)
        for organ, area in enumerate(areas.T):
            shown = np.flatnonzero(area)
            if len(shown):
                between = (np.diff(places[shown]) - 1) * self.spacing[0]
                cuts = np.flatnonzero((np.diff(shown) > 1) & (between >= least_mm)) + 1
                parts = [part.sum() for part in np.split(area[shown], cuts)]
                found[organ] = 1 - max(parts) / sum(parts)
        return found

    def millilitres(self, total: int) -> NDArray[np.float64]:
        """Each organ's volume, if the slices that were added stand for all `total` ones."""
        seen = self.slices
        area = np.nansum(seen[:, :, 0], axis=0)
        volume: NDArray[np.float64] = area * self.spacing[0] / 1000 * total / max(1, len(seen))
        return volume


def ranges(organs: Sequence[str], cases: Sequence[tuple[Tally, int]]) -> dict[str, Any]:
    """What is usual, as a model's record keeps it: numbers of slices and cases, no picture.

    Args:
        organs: their names.
        cases: training cases with the number of all their slices.

    Returns:
        JSON values: cases, slices, scan (SCAN and LENGTH to [lowest, highest]), organs (name to
        cases, slices, millilitres, STRAY, and each of MEASURES to [lowest, highest]), order (pairs
        of organs of which the first comes first in every case), histogram (BINS shares, the mean
        over the cases), histogram_apart (how far a case's is from it, at most); COURSES, where it
        tells the direction of a stack: scale (of each of COURSE) and lines (COURSE, POINTS), the
        mean over the cases, divided by it; of several channels also other_means: [lowest, highest]
        of each but the first.
    """
    scans = np.stack([tally.scan for tally, _ in cases])
    volumes = np.stack([tally.millilitres(total) for tally, total in cases])
    slices = np.concatenate([tally.slices for tally, _ in cases])
    strays = np.stack([tally.stray() for tally, _ in cases])
    found = {}
    for index, organ in enumerate(organs):
        shown = slices[~np.isnan(slices[:, index, 0]), index]
        known = volumes[volumes[:, index] > 0, index]
        if len(shown):
            found[organ] = {
                "cases": len(known),
                "slices": len(shown),
                "millilitres": _range(known),
                STRAY: _range(strays[~np.isnan(strays[:, index]), index]),
                **{name: _range(shown[:, place]) for place, name in enumerate(MEASURES)},
            }
    histograms = np.stack([tally.histogram for tally, _ in cases])
    middle = histograms.mean(axis=0)
    known = {
        "cases": len(cases),
        "slices": len(slices),
        "scan": {name: _range(scans[:, place]) for place, name in enumerate(SCAN)}
        | {LENGTH: _range(np.array([total * tally.spacing[0] for tally, total in cases]))},
        "organs": found,
        "order": _order(organs, np.stack([tally.along_mm for tally, _ in cases])),
        "histogram": [float(f"{share:.4g}") for share in middle],
        "histogram_apart": _range(np.array([apart(one, middle) for one in histograms]))[1],
    }
    known |= _courses(np.stack([tally.course(total) for tally, total in cases]))
    others = np.stack([tally.other_means for tally, _ in cases])
    return known | ({"other_means": [_range(of) for of in others.T]} if others.size else {})


def recorded(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a model's record keeps of its training slices; None where it keeps nothing.

    Raises:
        ValueError: it isn't as `ranges` gives it.
    """
    found = record.get("usual")
    if found is None:
        return None
    organs = found["organs"].values() if isinstance(found, dict) else ()
    parts = [(found["scan"], SCAN), *((organ, (*MEASURES, "millilitres")) for organ in organs)]
    for part, names in parts:
        for name in names:
            low, high = part[name]
            float(high - low)
    added = [found["scan"][LENGTH]] if LENGTH in found["scan"] else []
    added += [organ[STRAY] for organ in organs if STRAY in organ]
    for low, high in (*found.get("other_means", ()), *added):
        float(high - low)
    for share in (*found.get("histogram", ()), found.get("histogram_apart", 0)):
        float(share)
    if COURSES in found:
        shapes = [np.asarray(found[COURSES][name], float).shape for name in ("scale", "lines")]
        if shapes != [(len(COURSE),), (len(COURSE), POINTS)]:
            raise ValueError("usual: expected courses of the slices")
    if not all({first, second} <= {*found["organs"]} for first, second in found.get("order", ())):
        raise ValueError("usual: expected pairs of organs")
    if not all(isinstance(part["cases"], int) for part in (found, *organs)):
        raise ValueError("usual: expected numbers of cases")
    return dict(found)


def turned(course: NDArray[np.float64], usual: NDArray[np.float64]) -> float:
    """How much more a course is like another one turned round than like that one itself.

    Args:
        course, usual: (COURSE, POINTS), on one scale.

    Returns:
        -1 (the same) to 1 (the same, turned round), of the squared distances.
    """
    as_is, round_ = (((course - other) ** 2).sum() for other in (usual, usual[:, ::-1]))
    return float((as_is - round_) / (as_is + round_)) if as_is + round_ else 0.0


def apart(histogram: ArrayLike, other: ArrayLike) -> float:
    """How far brightness would have to move on average to make one histogram of the other.

    The Wasserstein distance of two histograms over [0, 1], of as many bins.
    """
    return float(np.abs(np.cumsum(np.subtract(histogram, other))).mean())


def _courses(courses: NDArray[np.float64]) -> dict[str, Any]:
    """What COURSES keeps, of the training cases' (cases, COURSE, POINTS): nothing where some case
    isn't more like the others than like them turned round, or they are fewer than ORDERED.
    """
    scale = courses.std(axis=(0, 2))
    if len(courses) < ORDERED or not scale.all():
        return {}
    lines = courses / scale[:, np.newaxis]
    for index, line in enumerate(lines):
        if turned(line, np.delete(lines, index, axis=0).mean(axis=0)) >= 0:
            return {}
    digits = np.vectorize(lambda value: float(f"{value:.4g}"))
    middle = digits(lines.mean(axis=0)).tolist()
    return {COURSES: {"scale": digits(scale).tolist(), "lines": middle}}


def _order(organs: Sequence[str], along: NDArray[np.float64]) -> list[list[str]]:
    """Pairs of organs of which the first comes before the other in all cases that show both.

    Args:
        organs: their names.
        along: (cases, organs), places along the slices, NaN where an organ isn't shown.
    """
    pairs = []
    for first, second in permutations(range(len(organs)), 2):
        steps = along[:, second] - along[:, first]
        steps = steps[~np.isnan(steps)]
        if len(steps) >= ORDERED and (steps > 0).all():
            pairs.append([organs[first], organs[second]])
    return pairs


def _centre(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """(row, column) of the brightness's centre; the middle of an image that is all dark."""
    height, width = image.shape
    rows, columns = image.sum(axis=1, dtype=np.float64), image.sum(axis=0, dtype=np.float64)
    total = rows.sum()
    if not total:
        return np.array([(height - 1) / 2, (width - 1) / 2])
    return np.array([rows @ np.arange(height), columns @ np.arange(width)]) / total


def _largest_piece(mask: NDArray[np.bool_]) -> float:
    pieces, _ = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel())[1:]
    return float(sizes.max() / sizes.sum())


def _range(values: NDArray[np.float64]) -> list[float]:
    """Lowest and highest, with four digits: more would say nothing."""
    return [float(f"{value:.4g}") for value in (values.min(), values.max())]

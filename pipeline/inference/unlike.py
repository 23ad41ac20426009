"""Warnings about a scan and its labels that are unlike what the model has learned from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging.geometry import BEGINS
from pipeline.inference.usual import (
    COURSES,
    LENGTH,
    MEASURES,
    SCAN,
    STRAY,
    Tally,
    apart,
    turned,
)

FEW = 5  # slices of an organ in training below which nothing is said of it
ALWAYS = 0.9  # share of the training cases from which on an organ is expected in every scan
SHARE = 0.25  # of an organ's area, from which on slices unlike training are told of
MARGIN = 0.1  # of a range's width, beyond either end of it
LEAST_MM, LEAST_PIECE = 10.0, 0.2  # least margins
# least margins of the brightness: of a scan, and of an organ, whose outline a model misses a little
LEAST_SCAN, LEAST_ORGAN = 0.05, 0.1
LENGTHS = 1.5  # factor of the length of the stack
# a histogram of brightness is told of that is so many times as far from training's as any of them
APART, LEAST_APART = 1.5, 0.03
FACTORS = {"gap_mm": 1.5, "pixel_mm": 1.5, "height_mm": 1.3, "width_mm": 1.3}
ANOTHER = "another modality, contrast phase, or part of the body"
# share of an organ that lies apart, after so many mm of slices without it, told of from here on
STRAYS, STRAY_MM = 0.1, 10.0
TURNED = 0.2  # of `usual.turned`, from which on a stack is taken to be reversed
VOLUMES = 2.0  # factor of an organ's volume; those of sparse slices are estimates
SIDES = {
    "gap_mm": "its slices lie {} mm apart",
    "pixel_mm": "its pixels are {} mm wide",
    "height_mm": "its field of view is {} mm high",
    "width_mm": "its field of view is {} mm wide",
}


@dataclass(frozen=True)
class Unlike:
    """What is unlike training.

    Attributes:
        scan: sentences on the scan.
        not_found: sentences on organs that are missing in its labels.
        organs: organ that was found to sentences on its labels; an organ without any isn't there.
    """

    scan: list[str]
    not_found: list[str]
    organs: dict[str, list[str]]

    @property
    def sentences(self) -> list[str]:
        """All of them, those on an organ with its name."""
        named = [f"{organ}: {text}" for organ, texts in self.organs.items() for text in texts]
        return [*self.scan, *self.not_found, *named]


def compare(
    usual: Mapping[str, Any],
    organs: Sequence[str],
    slices: Iterable[tuple[NDArray[np.floating], NDArray[np.uint8]]],
    spacing: Sequence[float],
    axes: str,
    channels: Sequence[str] = (),
) -> Unlike:
    """What is unlike training in a scan and in its labels.

    Args:
        usual: from `usual.ranges`.
        organs: names of the labels 1, 2, ...
        slices: each slice's image (H, W) or (C, H, W) in [0, 1] and its labels (H, W).
        spacing: voxel sides along slice, row and column, mm.
        axes: of the slices.
        channels: names of the images' channels, where there are several.
    """
    tally = Tally(len(organs), spacing)
    for image, labels in slices:
        tally.add(image, labels)
    not_found, found = label_warnings(usual, organs, tally, axes)
    scan = scan_warnings(usual, tally, channels) + _reversed(usual, organs, tally, axes)
    return Unlike(scan, not_found, found)


def scan_warnings(
    usual: Mapping[str, Any], tally: Tally, channels: Sequence[str] = ()
) -> list[str]:
    """What is unlike training in a scan, one sentence each.

    Args:
        usual: from `usual.ranges`.
        tally: of the scan's slices.
        channels: their names, where the scan has several.
    """
    found = []
    values = dict(zip(SCAN, tally.scan, strict=True))
    for name, factor in FACTORS.items():
        low, high = usual["scan"][name]
        if not low / factor <= values[name] <= high * factor:
            side = SIDES[name].format(_number(values[name]))
            found.append(f"{side}, in training {_shown(low, high)} mm.")
    if LENGTH in usual["scan"] and not found:  # else that is why
        low, high = usual["scan"][LENGTH]
        length = len(tally.slices) * tally.spacing[0]
        if not low / LENGTHS <= length <= high * LENGTHS:
            found.append(
                f"its slices cover {_number(length)} mm, in training {_shown(low, high)} mm."
            )
    means = [values["mean"], *tally.other_means]
    ranges = [usual["scan"]["mean"], *usual.get("other_means", ())]
    names = [f"its {name}" for name in channels] if len(means) > 1 else ["it"]
    swapped = ", or other channels in its place?" if len(means) > 1 else "?"
    told = []
    for name, mean, (low, high) in zip(names, means, ranges, strict=True):
        margin = max(LEAST_SCAN, MARGIN * (high - low))
        if not low - margin <= mean <= high + margin:
            word = "darker" if mean < low else "brighter"
            told.append(name)
            found.append(
                f"{name} is {word} than the training's scans (mean {mean:.2f} of the "
                f"range of intensities, in training {_shown(low, high)}): {ANOTHER}{swapped}"
            )
    if "histogram" in usual and names[0] not in told:
        allowed = max(LEAST_APART, APART * usual["histogram_apart"])
        if apart(tally.histogram, usual["histogram"]) > allowed:
            found.append(
                f"{'its brightness' if len(names) == 1 else f'the brightness of {names[0]}'} is "
                f"spread otherwise than in the training's scans: {ANOTHER}{swapped}"
            )
    return found


def _reversed(
    usual: Mapping[str, Any], organs: Sequence[str], tally: Tally, axes: str
) -> list[str]:
    """A sentence where most organs follow each other the other way round than in training; where
    no order of organs is known, where its slices change the other way round.
    """
    along = dict(zip(organs, tally.along_mm, strict=True))
    steps = {
        (first, second): along[second] - along[first] for first, second in usual.get("order", ())
    }
    known = {pair: step for pair, step in steps.items() if not np.isnan(step)}
    if not known:
        return _reversed_course(usual, tally)
    others = [pair for pair, step in known.items() if step < 0]
    if 2 * len(others) <= len(known):
        return []
    first, second = others[0]
    return [
        f"{len(others)} of {len(known)} pairs of organs follow each other the other way round than "
        f"in every training case (from the {BEGINS[axes[0]]} on {second} before {first}): is the "
        "stack of slices reversed?"
    ]


def _reversed_course(usual: Mapping[str, Any], tally: Tally) -> list[str]:
    """A sentence where brightness changes along the slices as in training's scans turned round."""
    if COURSES not in usual:
        return []
    known = {name: np.array(values) for name, values in usual[COURSES].items()}
    course = tally.course(len(tally.slices)) / known["scale"][:, np.newaxis]
    if turned(course, known["lines"]) < TURNED:
        return []
    return [
        "its brightness changes along the slices as in the training's scans turned round: is the "
        "stack of slices reversed?"
    ]


def label_warnings(
    usual: Mapping[str, Any], organs: Sequence[str], tally: Tally, axes: str
) -> tuple[list[str], dict[str, list[str]]]:
    """What is unlike training in the labels of a scan.

    Args:
        usual: from `usual.ranges`.
        organs: names of the labels 1, 2, ...
        tally: of all slices.
        axes: of the slices.

    Returns:
        `not_found` and `organs` of `Unlike`.
    """
    missing: dict[str, int] = {}
    found = {}
    slices = tally.slices
    volumes, strays = tally.millilitres(len(slices)), tally.stray(STRAY_MM)
    for index, organ in enumerate(organs):
        known = usual["organs"].get(organ)
        if known is None or known["slices"] < FEW:
            continue
        if not volumes[index]:
            if known["cases"] >= ALWAYS * usual["cases"]:
                missing[organ] = known["cases"]
            continue
        sentences = _unlike(known, volumes[index], slices[:, index], axes)
        if STRAY in known and strays[index] >= known[STRAY][1] + STRAYS:
            sentences.append(
                f"{strays[index]:.0%} of it lies apart from the rest, after {STRAY_MM:.0f} mm or "
                "more of slices without it."
            )
        if sentences:
            found[organ] = sentences
    return _not_found(missing, usual["cases"]), found


def _not_found(missing: Mapping[str, int], cases: int) -> list[str]:
    """One sentence on all organs that are missing, with how many training cases show each."""
    if not missing:
        return []
    least = min(missing.values())
    if len(missing) == 1:
        return [f"{next(iter(missing))}: not found; {least} of {cases} training cases show it."]
    names = ", ".join(missing)
    return [f"not found: {names}; {least} or more of {cases} training cases show each of them."]


def _unlike(
    known: Mapping[str, Any], millilitres: float, slices: NDArray[np.float64], axes: str
) -> list[str]:
    """Sentences on one organ that was found."""
    found = []
    low, high = known["millilitres"]
    if not low / VOLUMES <= millilitres <= high * VOLUMES:
        found.append(f"{_number(millilitres)} ml, in training {_shown(low, high)} ml.")
    shown = slices[~np.isnan(slices[:, 0])]
    area = shown[:, 0] / shown[:, 0].sum()
    for place, letter in ((1, axes[1]), (2, axes[2])):
        low, high = known[MEASURES[place]]
        margin = max(LEAST_MM, MARGIN * (high - low))
        before, after = shown[:, place] < low - margin, shown[:, place] > high + margin
        for beyond, edge, towards in ((before, low, BEGINS[letter]), (after, high, _end(letter))):
            if (share := area[beyond].sum()) >= SHARE:
                off = abs(np.average(shown[beyond, place] - edge, weights=area[beyond]))
                found.append(
                    f"{share:.0%} of it lies {off:.0f} mm farther to the {towards} than in any "
                    "training slice."
                )
    low, high = known["brightness"]
    margin = max(LEAST_ORGAN, MARGIN * (high - low))
    values = shown[:, 3]
    for beyond, word in ((values < low - margin, "darker"), (values > high + margin, "brighter")):
        if (share := area[beyond].sum()) >= SHARE:
            found.append(f"{share:.0%} of it is {word} than in any training slice.")
    low, _ = known["largest_piece"]
    if (share := area[shown[:, 4] < low - LEAST_PIECE].sum()) >= SHARE:
        found.append(
            f"{share:.0%} of it lies in slices that show it in more pieces than in training."
        )
    return found


def _shown(low: float, high: float) -> str:
    return " to ".join(dict.fromkeys((_number(low), _number(high))))


def _number(value: float) -> str:
    """Three digits, without an exponent."""
    return f"{float(f'{value:.3g}'):,.12g}"


def _end(letter: str) -> str:
    """Where an axis that grows towards a letter ends."""
    opposite = dict(zip("SIPALR", "ISAPRL", strict=True))
    return BEGINS[opposite[letter]]

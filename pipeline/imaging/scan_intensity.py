"""Intensities of a new scan: do they suit the rule that the model was trained with?

Values that the rule cannot be meant for are refused; merely unusual ones give a warning.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Percentile, Window
from pipeline.imaging import intensity
from pipeline.imaging.scans import Scan

NARROW = 0.125  # a range below this share of the window can't show its organs
CT_VALUES = (-4096.0, 64511.0)  # HU that no scanner stores lie outside; padding may
FEW_VALUES = 20  # whole numbers from 0: rather labels than intensities


@dataclass(frozen=True)
class Bounds:
    """Source units that become 0 and 1, and what was unusual, one sentence each."""

    low: float
    high: float
    warnings: tuple[str, ...]


def find_bounds(name: str, scan: Scan, rule: Window | Percentile) -> Bounds:
    """Check a scan's values and apply the run's rule to them.

    NaN and infinity take the value of the lower bound, in place.

    Args:
        name: of the scan, for messages.
        scan: its array must be writable where it isn't finite.
        rule: the run's.

    Raises:
        UserError: no finite value, one value only, or values that the rule can't be for.
    """
    array = scan.volume.array
    warnings = []
    bad = count_not_finite(array)
    if bad == array.size:
        raise UserError(f"{name}: no voxel has a finite value.")
    finite = array[np.isfinite(array)] if bad else array
    low, high = float(finite.min()), float(finite.max())
    if low == high:
        raise UserError(f"{name}: the image is empty: every voxel is {low:g}.")
    warnings += _labels_hint(array, low, high)
    if rule.kind == "window":
        warnings += _window_hints(name, scan.modality, rule, low, high)
    elif scan.modality == "CT":
        warnings.append("the series is CT, but the run scales by percentiles, as for MR.")
    lower, upper = intensity.bounds(finite, rule)
    if lower >= upper:
        raise UserError(
            f"{name}: the run's percentiles {rule.low:g} and {rule.high:g} of the voxels are both "
            f"{lower:g}; is the scan mostly empty?"
        )
    if bad:
        _fill(array, lower)
        warnings.append(f"voxels that are NaN or infinite: {bad}; they were taken as {lower:g}.")
    return Bounds(lower, upper, tuple(warnings))


def count_not_finite(array: NDArray[Any]) -> int:
    """Voxels that are NaN or infinite."""
    if array.dtype.kind != "f":
        return 0
    return sum(int(part.size - np.isfinite(part).sum()) for part in array)


def _fill(array: NDArray[Any], value: float) -> None:
    for part in array:
        part[~np.isfinite(part)] = value


def _labels_hint(array: NDArray[Any], low: float, high: float) -> list[str]:
    if array.dtype.kind not in "iu" or low != 0 or high >= 2**16:
        return []
    counts = np.zeros(int(high) + 1, np.int64)
    for part in array:
        counts += np.bincount(part.ravel(), minlength=len(counts))
    distinct = int((counts > 0).sum())
    if distinct > FEW_VALUES:
        return []
    return [f"the scan has only {distinct} different values, whole numbers: a label map?"]


def _window_hints(
    name: str, modality: str | None, rule: Window, low: float, high: float
) -> list[str]:
    """A window below 0 is one in Hounsfield units; values that can't be those are refused."""
    found, wanted = f"values from {low:g} to {high:g}", f"[{rule.low:g}, {rule.high:g}]"
    if rule.low < 0 and modality not in (None, "", "CT"):
        raise UserError(
            f"{name}: expected CT, whose window {wanted} HU the run was trained with, found a "
            f"series of modality {modality}; use a run trained on {modality}."
        )
    inside = min(high, rule.high) - max(low, rule.low)
    if inside <= 0 or high - low < NARROW * (rule.high - rule.low):
        raise UserError(
            f"{name}: expected values around the run's window {wanted}, found {found}; in CT that "
            "range is impossible. Was the scan rescaled? Give it in Hounsfield units."
        )
    if rule.low >= 0:
        return []
    if low < CT_VALUES[0] or high > CT_VALUES[1]:
        return [
            f"{found}, which CT can't have: padding, or a wrong rescale slope? Values outside "
            f"of the run's window {wanted} HU were taken as its ends."
        ]
    if low >= 0:
        return [
            f"{found} where the run's window is {wanted} HU and air is -1000: if this is CT, its "
            "rescale intercept is missing or air was cut off."
        ]
    return []

"""Intensities of a new scan: do they suit the rule that the model was trained with?

Values that the rule cannot be meant for are refused; merely unusual ones give a warning.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Percentile, Window
from pipeline.imaging import intensity
from pipeline.imaging.channels import each, joined, many
from pipeline.imaging.intensity import Edges, Rules
from pipeline.imaging.scans import Scan

NARROW = 0.125  # a scan whose range is below this share of the window can't show the organs
CT_VALUES = (-4096.0, 64511.0)  # HU that a scanner can store; padding may lie outside
FEW_VALUES = 20  # a scan with no more distinct whole numbers is rather a label map


@dataclass(frozen=True)
class Bounds:
    """How a scan is normalised.

    Attributes:
        low, high: values in source units that become 0 and 1, tuples of them for several channels.
        warnings: what is unusual in the scan's values, one sentence each.
    """

    low: Edges
    high: Edges
    warnings: tuple[str, ...]


def find_bounds(name: str, scan: Scan, rules: Rules, channels: Sequence[str] = ()) -> Bounds:
    """Check a scan's values and find the bounds that the run's intensity rule gives for them.

    Args:
        name: of the scan, for messages.
        scan: voxels that are NaN or infinite are set to the lower bound, in place.
        rules: that the run was trained with, of each channel.
        channels: their names, where there are several.

    Raises:
        UserError: no finite value, a single value, or values that the rule can't be meant for.
    """
    arrays, modalities = each(scan.volume.array), many(scan.modality)
    if len(arrays) == 1:
        low, high, warnings = _find_bounds(
            name, arrays[0], modalities[0], intensity.each_rule(rules)[0]
        )
        return Bounds(low, high, tuple(warnings))
    lows, highs, all_warnings = [], [], []
    for channel, array, modality, rule in zip(
        channels, arrays, modalities, intensity.each_rule(rules), strict=True
    ):
        low, high, warnings = _find_bounds(f"{name}, {channel}", array, modality, rule)
        lows.append(low)
        highs.append(high)
        all_warnings += [f"{channel}: {warning}" for warning in warnings]
    return Bounds(joined(lows), joined(highs), tuple(all_warnings))


def _find_bounds(
    name: str, array: NDArray[Any], modality: str | None, rule: Window | Percentile
) -> tuple[float, float, list[str]]:
    """The bounds of one channel (x, y, z), and what is unusual; as `find_bounds`."""
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
        warnings += _window_hints(name, modality, rule, low, high)
    elif modality == "CT":
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
    return lower, upper, warnings


def count_not_finite(array: NDArray[Any]) -> int:
    """Number of voxels that are NaN or infinite."""
    if array.dtype.kind != "f":
        return 0
    return sum(int(part.size - np.isfinite(part).sum()) for part in array)


def _fill(array: NDArray[Any], value: float) -> None:
    """Set NaN and infinity to a value, in place; slice by slice to save memory."""
    for part in array:
        part[~np.isfinite(part)] = value


def _labels_hint(array: NDArray[Any], low: float, high: float) -> list[str]:
    """A warning where the scan looks like a label map; low and high are its extremes."""
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
    """Warnings about values, from low to high, that are odd under the window.

    A window that begins below 0 is taken to be in Hounsfield units.

    Raises:
        UserError: another modality than CT, or a range that can't be in Hounsfield units.
    """
    found, wanted = f"values from {low:g} to {high:g}", f"[{rule.low:g}, {rule.high:g}]"
    if rule.low < 0 and modality not in (None, "", "CT"):
        raise UserError(
            f"{name}: expected CT, whose window {wanted} HU the run was trained with, found a "
            f"series of modality {modality}; use a run trained on {modality}."
        )
    inside = min(high, rule.high) - max(low, rule.low)
    if inside <= 0 or high - low < NARROW * (rule.high - rule.low):
        hint = "was the scan rescaled? Give it in the units of the run's data"
        if rule.low < 0:
            hint = (
                "in CT that range is impossible. Is it another modality, such as MR, or was the "
                "scan rescaled? Give a CT in Hounsfield units"
            )
        raise UserError(
            f"{name}: expected values around the run's window {wanted}, found {found}; {hint}."
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
            f"{found} where the run's window is {wanted} HU and air is -1000: another modality, "
            "such as MR? If this is CT, its rescale intercept is missing or air was cut off."
        ]
    return []

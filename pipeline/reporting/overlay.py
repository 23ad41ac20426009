"""A picture of a whole prediction: slices in their order with the organs tinted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from pipeline.core.files import atomic_path
from pipeline.imaging.channels import first
from pipeline.imaging.colours import organ_colours
from pipeline.imaging.display import shown, shown_spacing, sides
from pipeline.inference.volume import Slices

COLUMNS, ROWS = 4, 3
PANEL_INCHES = 2.4
DPI = 150
TINT = 0.45  # share of an organ's colour, the rest being the image


def write_overlay(
    path: Path,
    images: Slices,
    labels: NDArray[np.uint8],
    names: Sequence[str],
    spacing_mm: tuple[float, float, float],
    axes: str,
) -> None:
    """Write a PNG of up to 12 slices in the radiological display, and the organs' volumes.

    Args:
        path: of the PNG.
        images: (slices, rows, columns) in [0, 1], read slice by slice; of several channels
            (slices, C, rows, columns) the first is shown.
        labels: (slices, rows, columns); label k is `names[k - 1]`.
        names: organs.
        spacing_mm: voxel sides along slice, row and column.
        axes: of the slices, as in `pipeline.imaging.geometry`.
    """
    chosen, colours = choose_slices(labels, COLUMNS * ROWS), organ_colours(names)
    rows = -(-len(chosen) // COLUMNS)
    _, row_mm, column_mm = shown_spacing(spacing_mm, axes)
    shown_rows, shown_columns = shown(labels, axes).shape[1:]
    height = shown_rows * row_mm / (shown_columns * column_mm)
    size = (COLUMNS * PANEL_INCHES, rows * PANEL_INCHES * min(max(height, 0.3), 3) + 0.8)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for panel in panels:
        panel.axis("off")
    for panel, index in zip(panels, chosen, strict=False):
        image = shown(first(images[index : index + 1])[0], axes)
        tinted = _tint(image, shown(labels[index], axes), colours)
        _draw(panel, tinted, row_mm / column_mm, sides(axes))
        panel.set_title(f"slice {index}", fontsize=8)
    figure.legend(
        handles=_legend(labels, names, spacing_mm), loc="outside lower center", ncols=4, fontsize=8
    )
    with atomic_path(path) as temporary:
        # no name and version of the writer, so that the same prediction gives the same bytes
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})


def choose_slices(labels: NDArray[np.uint8], number: int) -> list[int]:
    """Indices of up to `number` slices, spread evenly over those that show an organ.

    Args:
        labels: (slices, rows, columns); if no slice shows an organ, all are chosen from.
        number: of slices.
    """
    shown = np.flatnonzero(labels.any(axis=(1, 2)))
    pool = shown if len(shown) else np.arange(len(labels))
    places = np.linspace(0, len(pool) - 1, min(number, len(pool)))
    return pool[np.unique(places.round().astype(int))].tolist()


def _tint(
    image: NDArray[np.float32], labels: NDArray[np.uint8], colours: Sequence[str]
) -> NDArray[np.float32]:
    """Image and labels (rows, columns) -> (rows, columns, 3); label k has `colours[k - 1]`."""
    picture = np.repeat(image[..., None], 3, axis=2)
    for label in np.unique(labels[labels > 0]):
        inside = labels == label
        colour = np.array(to_rgb(colours[int(label) - 1]), np.float32)
        picture[inside] = (1 - TINT) * picture[inside] + TINT * colour
    return np.clip(picture, 0, 1)


def _draw(
    axes: Axes, picture: NDArray[np.float32], aspect: float, letters: tuple[str, str]
) -> None:
    axes.imshow(picture, aspect=aspect, interpolation="nearest")
    mark: dict[str, Any] = {
        "color": "white",
        "fontsize": 8,
        "va": "center",
        "transform": axes.transAxes,
    }
    axes.text(0.02, 0.5, letters[0], ha="left", **mark)
    axes.text(0.98, 0.5, letters[1], ha="right", **mark)


def _legend(
    labels: NDArray[np.uint8], names: Sequence[str], spacing_mm: tuple[float, float, float]
) -> list[Patch]:
    counts = np.bincount(labels.ravel(), minlength=len(names) + 1)
    millilitres = counts * np.prod(spacing_mm) / 1000
    return [
        Patch(color=colour, label=f"{name} {millilitres[label]:.1f} ml")
        for label, (name, colour) in enumerate(zip(names, organ_colours(names), strict=True), 1)
    ]

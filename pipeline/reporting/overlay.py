"""A picture of a whole prediction: slices with the organs tinted, projections with outlines."""

from collections.abc import Sequence
from dataclasses import dataclass
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
from pipeline.imaging.geometry import PLANES
from pipeline.inference.volume import Slices

COLUMNS, ROWS = 4, 3
PANEL_INCHES = 2.4
PROJECTION_INCHES = 3.2  # height of the projections
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
    """Write a PNG of up to 12 slices in the radiological display, of the mean along each axis with
    the organs' outlines, and of the organs' volumes.

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
    inches = PANEL_INCHES * min(max(height, 0.3), 3)
    size = (COLUMNS * PANEL_INCHES, rows * inches + PROJECTION_INCHES + 0.8)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    # twelve columns, which both four slices and three projections divide
    grid = figure.add_gridspec(rows + 1, 12, height_ratios=[inches] * rows + [PROJECTION_INCHES])
    panels = [
        figure.add_subplot(grid[row, 3 * column : 3 * column + 3])
        for row in range(rows)
        for column in range(COLUMNS)
    ]
    below = [figure.add_subplot(grid[rows, 4 * place : 4 * place + 4]) for place in range(3)]
    for panel in (*panels, *below):
        panel.axis("off")
    for panel, projection in zip(below, projections(images, labels, spacing_mm, axes), strict=True):
        _draw_projection(panel, projection, colours)
    for panel, index in zip(panels, chosen, strict=False):
        image = shown(first(images[index : index + 1])[0], axes)
        picture = tinted(image, shown(labels[index], axes), colours)
        _draw(panel, picture, row_mm / column_mm, sides(axes))
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


@dataclass(frozen=True, eq=False)
class Projection:
    """A volume along one of its axes, in the radiological display.

    Attributes:
        image: (rows, columns), the mean along the axis, the largest one scaled to 1. The largest
            values (MIP) of images that a window has clipped would be white nearly everywhere.
        organs: label to mask (rows, columns), where it lies anywhere along the axis.
        row_mm, column_mm: sides of a pixel.
        axes: of the picture, as of slices along the axis.
    """

    image: NDArray[np.float32]
    organs: dict[int, NDArray[np.bool_]]
    row_mm: float
    column_mm: float
    axes: str


def projections(
    images: Slices,
    labels: NDArray[np.uint8],
    spacing_mm: tuple[float, float, float],
    axes: str,
) -> list[Projection]:
    """The volume along its slices, rows and columns: axial, coronal and sagittal.

    Args:
        images, labels, spacing_mm, axes: as for `write_overlay`.
    """
    slices, rows, columns = labels.shape
    along = [
        np.zeros((rows, columns), np.float32),
        np.empty((slices, columns), np.float32),
        np.empty((slices, rows), np.float32),
    ]
    for index in range(slices):
        image = first(images[index : index + 1])[0]
        along[0] += image
        along[1][index], along[2][index] = image.mean(axis=0), image.mean(axis=1)
    present = [int(label) for label in np.unique(labels) if label]
    found = []
    for axis, picture in enumerate(along):
        others = [other for other in range(3) if other != axis]
        turned = axes[axis] + "".join(axes[other] for other in others)
        sides_mm = (spacing_mm[axis], spacing_mm[others[0]], spacing_mm[others[1]])
        _, row_mm, column_mm = shown_spacing(sides_mm, turned)
        organs = {label: shown((labels == label).any(axis=axis), turned) for label in present}
        scaled = picture / max(float(picture.max()), float(np.finfo(np.float32).tiny))
        found.append(Projection(shown(scaled, turned), organs, row_mm, column_mm, turned))
    return sorted(found, key=lambda item: PLANES[item.axes[0]])


def _draw_projection(panel: Axes, projection: Projection, colours: Sequence[str]) -> None:
    aspect = projection.row_mm / projection.column_mm
    grey = np.repeat(projection.image[..., None], 3, axis=2)
    _draw(panel, np.clip(grey, 0, 1), aspect, sides(projection.axes))
    for label, mask in projection.organs.items():
        # without padding the outline of an organ at the border would stay open
        padded = np.pad(mask, 1).astype(float)
        rows, columns = (np.arange(side) - 1 for side in padded.shape)
        panel.contour(columns, rows, padded, [0.5], colors=[colours[label - 1]], linewidths=1.2)
    panel.set_title(f"{PLANES[projection.axes[0]]} projection", fontsize=8)


def tinted(
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

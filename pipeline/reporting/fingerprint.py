"""The page of a data set's fingerprint: what its voxels say, what stands out, what follows from it.

The same survey and plan give the same page, to the byte.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline.core.params.blocks import Percentile, Window
from pipeline.imaging import intensity
from pipeline.imaging.colours import organ_colours
from pipeline.planning import parameter_file
from pipeline.planning.choices import Plan
from pipeline.planning.sketches import BINS, Sketch
from pipeline.planning.survey import Survey
from pipeline.reporting import drawing, layout

TEMPLATE = "fingerprint.html.j2"
INTENSITY = "prepare.intensity"
THUMBNAIL = 160  # pixels that a slice's longer side is enlarged to, about
PERCENT = 100.0
MARGIN = 0.3  # of the window's width, on either side of it


def render(survey: Survey, plan: Plan, file: str) -> str:
    """The page's HTML.

    Args:
        survey: of the data set.
        plan: what was chosen for it.
        file: name of the parameter file.
    """
    values = {choice.key: choice.value for choice in plan.choices}
    chosen = values[INTENSITY]
    rules = survey.rules if chosen is None else intensity.each_rule(intensity.rule(chosen))
    rule = rules[0]
    far = survey.far_from_others()
    shared = set.intersection(*(set(case["warnings"]) for case in survey.cases))
    colours = dict(zip(survey.organs, organ_colours(survey.organs), strict=True))
    return layout.render(
        TEMPLATE,
        {
            "title": survey.title,
            "file": file,
            "facts": _facts(survey),
            "median_volume": _median_volume(survey),
            "channel": survey.channels[0] if len(survey.channels) > 1 else None,
            "remarks": survey.remarks(),
            "intensities": _intensities(survey, rule),
            "intensity_note": _intensity_note(survey, rule),
            "spacings": _strip("spacings", survey.spacings_mm(), "mm", "Voxel sides"),
            "extents": _strip("extents", survey.extents_mm(), "mm", "Sizes of the volumes"),
            "volumes": _strip("volumes", survey.volumes_ml(), "ml", "Volumes of organs", log=True),
            "cases": [
                _case(facts, sketch, far.get(facts["case"], []), shared, survey)
                for facts, sketch in zip(survey.cases, survey.sketches, strict=True)
            ],
            "colours": colours,
            "choices": [
                (choice.key, parameter_file.shown(choice.value), choice.reason)
                for choice in plan.choices
            ],
        },
    )


def _facts(survey: Survey) -> dict[str, str]:
    """What is said first: name to value."""
    return {
        "cases": f"{len(survey.cases):,}",
        "scans": "CT" if survey.ct else "MR or the like",
        "slices": survey.plane,
        "organs": f"{len(survey.organs):,}",
    }


def _median_volume(survey: Survey) -> str:
    shape = np.median([case["shape"] for case in survey.cases], axis=0)
    spacing = np.median([case["spacing_mm"] for case in survey.cases], axis=0)
    voxels = " × ".join(f"{side:.0f}" for side in shape)
    return f"Median volume: {voxels} voxels of {' × '.join(f'{mm:.3g}' for mm in spacing)} mm."


def _intensity_note(survey: Survey, rule: Window | Percentile) -> str:
    """What becomes black and white, in words."""
    if rule.kind == "window":
        return f"Between the lines lies what the model sees: {rule.low:g} to {rule.high:g}."
    return (
        "Scans without units: 0 and 100 are each volume's percentiles 0.5 and 99.5. "
        f"The model sees percentiles {rule.low:g} to {rule.high:g}."
    )


def _intensities(survey: Survey, rule: Window | Percentile) -> Markup:
    """Histograms of all voxels and of those of organs, the mean over the cases, and the window."""
    absolute = rule.kind == "window"
    scaled = [
        (sketch, *(_edges(sketch, facts, absolute)))
        for sketch, facts in zip(survey.sketches, survey.cases, strict=True)
    ]
    first, last = (rule.low, rule.high) if absolute else (0.0, PERCENT)
    margin = MARGIN * (last - first)
    lowest, highest = first - margin, last + margin
    edges = np.linspace(lowest, highest, BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    whole = np.mean([_rebinned(s.whole, low, high, edges) for s, low, high in scaled], axis=0)
    inside = [_rebinned(s.labelled, low, high, edges) for s, low, high in scaled if any(s.labelled)]
    with drawing.canvas("intensities", (7.2, 2.6)) as (axes, svg):
        for shares, name, colour in (
            (whole, "all voxels", drawing.SERIES[0]),
            (np.mean(inside, axis=0) if inside else None, "voxels of organs", drawing.SERIES[1]),
        ):
            if shares is not None and shares.max() > 0:
                heights = shares / shares.max()
                axes.fill_between(middles, heights, step="mid", color=colour, alpha=0.25, lw=0)
                axes.plot(middles, heights, drawstyle="steps-mid", color=colour, label=name)
        if rule.kind == "window":
            for place in (rule.low, rule.high):
                axes.axvline(place, color=drawing.INK, lw=1.2, ls="--")
        axes.set_xlim(lowest, highest)
        axes.set_ylim(0, 1.05)
        axes.set_yticks([])
        axes.set_xlabel(
            ("HU" if survey.ct else "source units")
            if absolute
            else "% of the way from a volume's percentile 0.5 to 99.5"
        )
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
    return Markup(drawing.named(svg[0], "Intensities of all voxels and of organs"))


def _edges(sketch: Sketch, facts: Mapping[str, Any], absolute: bool) -> tuple[float, float]:
    """Where a case's histogram begins and ends on the axis of the plot."""
    if absolute:
        return sketch.low, sketch.high
    low, high = facts["percentiles"]["0.5%"], facts["percentiles"]["99.5%"]
    width = high - low if high > low else 1.0
    return PERCENT * (sketch.low - low) / width, PERCENT * (sketch.high - low) / width


def _rebinned(
    shares: NDArray[np.float64], low: float, high: float, edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Shares in bins from low to high as shares in other bins; what lies beyond them is left out.

    So is the first bin: air and padding are so many voxels that they would dwarf all others.
    """
    below = np.concatenate(([0, 0], np.cumsum(shares[1:])))
    return np.diff(np.interp(edges, np.linspace(low, high, len(shares) + 1), below))


def _strip(
    name: str,
    groups: Mapping[str, Mapping[str, float]],
    unit: str,
    title: str,
    *,
    log: bool = False,
) -> Markup | None:
    """A dot a case in a row a group; None where nothing is to be shown."""
    values = {group: list(found.values()) for group, found in groups.items() if found}
    if not values:
        return None
    svg = drawing.strip_plot(name, values, unit, scale="log" if log else "linear")
    return Markup(drawing.named(svg, title))


def _case(
    facts: Mapping[str, Any],
    sketch: Sketch,
    far: Sequence[str],
    shared: Collection[str],
    survey: Survey,
) -> dict[str, Any]:
    """A case's picture and what is said below it, but for warnings that all cases share."""
    colours = organ_colours(survey.organs)
    pixels = drawing.slice_pixels(
        (sketch.image / 255).astype(np.float32), sketch.classes, colours, side=THUMBNAIL
    )
    shown = [survey.organs[k - 1] for k in np.unique(sketch.classes) if k]
    return {
        "name": facts["case"],
        "uri": drawing.data_uri(pixels),
        "plane": sketch.plane,
        "shape": " × ".join(map(str, facts["shape"])),
        "spacing": " × ".join(f"{side:.3g}" for side in facts["spacing_mm"]),
        "organs": ", ".join(shown) or "no organ",
        "remarks": [
            *(warning for warning in facts["warnings"] if warning not in shared),
            *(f"{words}." for words in far),
        ],
    }

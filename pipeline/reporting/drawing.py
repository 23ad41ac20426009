"""Plots as inline SVG that takes the page's colours, and pictures of labelled slices as PNG.

Everything here gives the same bytes for the same numbers: no dates, no random ids.
"""

import base64
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape, unescape
from typing import Any, Literal
from urllib.parse import quote, unquote

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray
from scipy import ndimage

# colours that stand in matplotlib's SVG for those of the page's style sheet, light or dark
PAGE_COLOURS = {
    "#010101": "currentColor",
    "#020202": "var(--line)",
    "#030303": "var(--series-1)",
    "#040404": "var(--series-2)",
    "#050505": "var(--series-3)",
    "#060606": "var(--series-4)",
    "#070707": "var(--series-5)",
    "#080808": "var(--series-6)",
    "#090909": "var(--series-7)",
    "#101010": "var(--series-8)",
}
INK, LINE, *SERIES = PAGE_COLOURS
DASHES = ("-", "--", ":")
STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": LINE,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.color": LINE,
    "ytick.labelcolor": INK,
}
TITLE = "title:"  # address of what has a title and leads nowhere
Scale = Literal["share", "linear", "log", "fitted", "difference"]
PICTURE_SIDE = 384  # pixels
FILL = 0.4  # share of an organ's colour inside its outline, over the image


def line_plot(
    name: str,
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    *,
    label: str,
    x_label: str = "epoch",
    markers: bool = False,
) -> str:
    """An SVG of up to three lines over one axis of whole numbers.

    Args:
        name: unique within the page; ids of the SVG begin with it.
        x: position of each value.
        lines: label to values; NaN: no point.
        label: of the vertical axis.
        x_label: of the horizontal axis.
        markers: whether to mark each point.
    """
    with canvas(name, (4.6, 2.5)) as (axes, svg):
        for (title, values), colour, dash in zip(lines.items(), SERIES, DASHES, strict=False):
            defined = ~np.isnan(np.asarray(values, float))
            marker = "o" if markers or defined.sum() == 1 else None
            (line,) = axes.plot(
                np.asarray(x)[defined],
                np.asarray(values, float)[defined],
                dash,
                color=colour,
                label=title,
                marker=marker,
                markersize=3.5,
            )
            traced(line)
        axes.set_xlabel(x_label)
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(lines) > 1:
            axes.legend()
    return svg[0]


def strip_plot(
    name: str,
    groups: Mapping[str, Sequence[float]],
    label: str,
    links: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    scale: Scale = "share",
) -> str:
    """An SVG with a row for each group: a dot for each value, a bar at their mean.

    Args:
        name: unique within the page.
        groups: label of the row to values; NaN is left out.
        label: of the horizontal axis.
        links: label of the row to the address and the title of each value.
        scale: of the horizontal axis: from 0 to 1; from 0 to the largest value; logarithmic, for
            values above 0; from the smallest to the largest value; the same of differences, with an
            upright line at 0.
    """
    linked = links or {}
    with canvas(name, (7.2, 0.5 + 0.32 * len(groups))) as (axes, svg):
        for row, (group, values) in enumerate(groups.items()):
            whole = np.asarray(values, float)
            defined = np.flatnonzero(~np.isnan(whole))
            found = whole[defined]
            # a fixed zigzag keeps equal values apart
            shift = np.resize([-0.16, 0, 0.16], len(defined))
            dots = axes.scatter(found, row + shift, s=16, color=SERIES[0], alpha=0.6, zorder=2)
            if group in linked:
                dots.set_urls([linked[group][int(place)][0] for place in defined])
            if len(found):
                axes.plot([found.mean()] * 2, [row - 0.34, row + 0.34], color=SERIES[1], lw=2.2)
        axes.grid(axis="x")
        axes.grid(visible=False, axis="y")
        axes.set_yticks(range(len(groups)), list(groups))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        if scale == "share":
            axes.set_xlim(-0.02, 1.02)
        elif scale == "linear":
            axes.set_xlim(left=0)
        elif scale == "difference":
            axes.axvline(0, color=INK, lw=0.9, zorder=1)
        elif scale == "log":
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(FuncFormatter(_plain))
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(label)
    titles = {address: title for group in linked.values() for address, title in group}
    return _titled(svg[0], titles)


def _plain(value: float, _: int | None) -> str:
    """A number on an axis, without an exponent."""
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


def traced(line: Line2D, *others: Artist) -> None:
    """Let readers read off the values of a labelled line and switch it off, with other artists.

    Of a band beside a line, made by `fill_between`, the values are shown too. Axes are linear.
    """
    lines = line.axes.lines  # type: ignore[union-attr]
    number = sum(_is_traced(other) for other in lines)
    for place, artist in enumerate((line, *others)):
        artist.set_gid(f"series-{number}-{place}")


def _is_traced(artist: Artist) -> bool:
    return (artist.get_gid() or "").startswith("series-")


def title_each(artist: Line2D | PathCollection, titles: Sequence[str]) -> None:
    """Give each dot of `scatter`, or a line, a title that shows under the pointer."""
    addresses = [TITLE + quote(title) for title in titles]
    if isinstance(artist, Line2D):
        artist.set_url(addresses[0])
    else:
        artist.set_urls(addresses)


def named(svg: str, name: str, *, links: bool = False) -> str:
    """The SVG with a name for screen readers, which read its links, if it has any, and no marks."""
    role = "group" if links else "img"
    return svg.replace("<svg ", f'<svg role="{role}" aria-label="{escape(name)}" ', 1)


def _titled(svg: str, titles: Mapping[str, str]) -> str:
    """The SVG with a title in every link, which opens in the same window."""

    def link(match: re.Match[str]) -> str:
        title = escape(titles[unescape(match[1])])
        return f'<a xlink:href="{match[1]}"><title>{title}</title>'

    return re.sub(r'<a xlink:href="([^"]*)"[^>]*>', link, svg) if titles else svg


def slice_picture(
    image: NDArray[np.float32],
    labels: NDArray[np.uint8] | None = None,
    colours: Sequence[str] = (),
) -> str:
    """A slice as `slice_pixels` draws it, as the data URI of a PNG."""
    return data_uri(slice_pixels(image, labels, colours))


def slice_pixels(
    image: NDArray[np.float32],
    labels: NDArray[np.uint8] | None = None,
    colours: Sequence[str] = (),
    *,
    outlined: bool = True,
    side: int = PICTURE_SIDE,
) -> NDArray[np.uint8]:
    """A slice in grey, with its organs tinted and outlined, enlarged by a whole factor.

    Args:
        image: (rows, columns) in [0, 1].
        labels: (rows, columns); label k has colour k - 1; None: the image alone.
        colours: "#rrggbb" of each label.
        outlined: whether organs have an outline beside their tint.
        side: pixels that the longer side is enlarged to, about: the factor is a whole number.

    Returns:
        RGB (rows * factor, columns * factor, 3).
    """
    factor = max(1, round(side / max(image.shape)))
    grey = ndimage.zoom(image, factor, order=1, mode="nearest", grid_mode=True)
    picture = np.repeat(np.clip(grey, 0, 1)[..., None], 3, axis=2)
    if labels is not None:
        enlarged = labels.repeat(factor, axis=0).repeat(factor, axis=1)
        palette = np.array([to_rgb(colour) for colour in colours])
        inside = enlarged > 0
        tint = palette[enlarged[inside].astype(int) - 1]
        line = _outline(enlarged)[inside] if outlined else np.zeros(len(tint), bool)
        share = np.where(line, 1.0, FILL)[:, None]
        picture[inside] = (1 - share) * picture[inside] + share * tint
    return np.round(picture * 255).astype(np.uint8)


def _outline(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels with a neighbour of another label."""
    low = ndimage.minimum_filter(labels, size=3, mode="nearest")
    high = ndimage.maximum_filter(labels, size=3, mode="nearest")
    return low != high


def data_uri(pixels: NDArray[np.uint8]) -> str:
    """RGB pixels (rows, columns, 3) as the data URI of a PNG without metadata."""
    png = io.BytesIO()
    metadata: Any = {"Software": None}  # None leaves it out
    imsave(png, pixels, format="png", metadata=metadata)
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()


@contextmanager
def canvas(name: str, size: tuple[float, float]) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on, and a list to which the SVG is added when the block ends.

    Args:
        name: unique within the page; ids of the SVG begin with it.
        size: width and height, inches.
    """
    svg: list[str] = []
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        yield axes, svg
        _mark_legend(axes)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True)
        traces = _traces(axes)
    svg.append(_for_page(name, text.getvalue(), traces))


def _mark_legend(axes: Axes) -> None:
    """Give the entries of traced lines in the legend ids that say whose they are."""
    numbers = {
        str(line.get_label()): str(line.get_gid()).split("-")[1]
        for line in axes.lines
        if _is_traced(line)
    }
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    for legend in filter(None, [axes.get_legend(), *figure.legends]):
        for words, handle in zip(legend.get_texts(), legend.legend_handles, strict=True):
            if (number := numbers.get(words.get_text())) is not None:
                words.set_gid(f"key-{number}-0")
                if handle is not None:
                    handle.set_gid(f"key-{number}-1")


def _traces(axes: Axes) -> dict[str, Any] | None:
    """What a script reads off the traced lines of a drawn plot; None without any.

    Returns:
        `label` of the horizontal axis; `x_scale` and `y_scale`: [value, place, value, place] of the
        axes' ends, places in the SVG's own unit; `lines`: `name`, `x`, `y` and, of a band, `low`
        and `high` of each.
    """
    lines = [line for line in axes.lines if _is_traced(line)]
    if not any(len(line.get_xdata()) for line in lines):  # type: ignore[arg-type]
        return None
    figure = axes.get_figure()
    assert isinstance(figure, Figure)
    ends = np.array([axes.get_xlim(), axes.get_ylim()])
    places = axes.transData.transform(ends.T) * 72 / figure.dpi
    places[:, 1] = 72 * figure.get_figheight() - places[:, 1]  # SVG counts from the top
    scales = [
        [_figure(value) for pair in zip(ends[axis], places[:, axis], strict=True) for value in pair]
        for axis in range(2)
    ]
    return {
        "label": axes.get_xlabel(),
        "x_scale": scales[0],
        "y_scale": scales[1],
        "lines": [_trace(axes, line) for line in lines],
    }


def _trace(axes: Axes, line: Line2D) -> dict[str, Any]:
    trace: dict[str, Any] = {"name": str(line.get_label())}
    for key, values in (("x", line.get_xdata()), ("y", line.get_ydata())):
        trace[key] = [_figure(value) for value in np.asarray(values, float)]
    prefix = str(line.get_gid()).rpartition("-")[0]
    for band in axes.collections:
        if str(band.get_gid() or "").startswith(f"{prefix}-"):
            # around the band: the first point, the lower edge, the upper edge backwards
            edge = np.asarray(band.get_paths()[0].vertices)[:, 1]
            count = len(trace["x"])
            trace["low"] = [_figure(value) for value in edge[1 : count + 1]]
            trace["high"] = [_figure(value) for value in edge[count + 2 : 2 * count + 2][::-1]]
    return trace


def _figure(value: float) -> float:
    return float(f"{value:.6g}")


def _for_page(name: str, svg: str, traces: Mapping[str, Any] | None) -> str:
    """The SVG element alone, with the page's colours, ids that begin with `name`, and traces."""
    svg = svg[svg.index("<svg") :].strip()
    for drawn, shown in PAGE_COLOURS.items():
        svg = svg.replace(drawn, shown)
    # matplotlib's name and the date
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(id="|url\(#|href="#(?!case=))', rf"\g<1>{name}-", svg)
    svg = re.sub(
        rf'<a xlink:href="{TITLE}([^"]*)"[^>]*>(.*?)</a>',
        lambda match: f"<g><title>{escape(unquote(match[1]))}</title>{match[2]}</g>",
        svg,
        flags=re.DOTALL,
    )
    if traces is not None:
        content = escape(json.dumps(traces, ensure_ascii=False, separators=(",", ":")))
        svg = svg.replace("<svg ", f'<svg data-name="{name}" data-traces="{content}" ', 1)
    # the page sets the width
    return re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)

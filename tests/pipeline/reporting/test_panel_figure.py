"""Figures of slices: their size on paper, text, marks and legend."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle

from pipeline.reporting.look import Look
from pipeline.reporting.panel_figure import bar_mm, draw
from pipeline.reporting.panels import Row, difference_panel, framed, panel

ORGANS = ["liver", "aorta"]
SPACING = (3.0, 1.6, 0.8)  # rows are further apart than columns
SIDES = ("R", "L")


@pytest.fixture
def picture() -> np.ndarray:
    return np.linspace(0, 1, 40 * 30, dtype=np.float32).reshape(40, 30)


@pytest.fixture
def labels() -> np.ndarray:
    found = np.zeros((40, 30), np.uint8)
    found[10:20, 5:15] = 2
    return found


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def bar(axes):
    return next((line for line in axes.lines if line.get_gid() == "scale-bar"), None)


def test_rows_titles_notes_frames_and_organs_are_drawn(picture, labels):
    items = [
        panel(picture, None, SPACING, ORGANS),
        panel(picture, labels, SPACING, ORGANS, note="Dice 0.50"),
    ]
    items[0] = framed(items[0], (slice(0, 20), slice(0, 15)))
    rows = [Row("a, slice 1", items), Row("b, slice 2", items)]
    figure = draw(rows, ["x", "y"], Look(), SIDES, ["", "mean Dice 0.7"])
    axes = figure.axes
    assert [a.get_title().strip() for a in axes] == ["x", "y\nmean Dice 0.7", "", ""]
    assert [a.get_ylabel() for a in axes] == ["a, slice 1", "", "b, slice 2", ""]
    assert axes[1].get_xlabel() == "Dice 0.50"
    (box,) = [patch for patch in axes[0].patches if isinstance(patch, Rectangle)]
    assert box.get_bbox().bounds == pytest.approx((0, 0.5, 0.5, 0.5))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["aorta"]


def test_the_legend_has_what_is_shown_in_the_order_of_the_labels(picture, labels):
    liver = np.where(labels > 0, 1, 0).astype(np.uint8)
    items = [
        difference_panel(picture, labels, liver, SPACING),
        panel(picture, labels, SPACING, ["liver", "aorta", "spleen"]),
        panel(picture, liver, SPACING, ["liver", "aorta", "spleen"]),
    ]
    (legend,) = draw([Row("a", items)], list("xyz"), Look(), SIDES).legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["stages differ", "liver", "aorta"]
    plain = panel(picture, None, SPACING, ORGANS)
    assert not draw([Row("a", [plain])], ["x"], Look(), SIDES).legends


@pytest.mark.parametrize(
    ("style", "contours", "tinted"),
    [("fill", 0, True), ("contour", 1, False), ("both", 1, True)],
)
def test_styles(picture, labels, style, contours, tinted):
    items = [panel(picture, labels, SPACING, ORGANS)]
    (axes,) = draw([Row("a", items)], ["x"], Look(style=style), SIDES).axes
    assert len(axes.collections) == contours
    pixels = np.asarray(axes.images[0].get_array())
    assert (np.ptp(pixels, axis=2) > 0).any() == tinted


def test_contours_go_around_the_pixels_and_close_at_the_edge(picture):
    corner = np.zeros((40, 30), np.uint8)
    corner[30:, 20:] = 1
    items = [panel(picture, corner, SPACING, ORGANS)]
    (axes,) = draw([Row("a", items)], ["x"], Look(style="contour"), SIDES).axes
    (path,) = axes.collections[0].get_paths()
    assert path.vertices.min(0).tolist() == [20, 30] and path.vertices.max(0).tolist() == [30, 40]
    assert axes.get_xlim() == (0, 30) and axes.get_ylim() == (40, 0)


def test_contours_are_thinner_in_small_panels(picture, labels):
    widths = {}
    for columns in (1, 4, 12):
        items = [panel(picture, labels, SPACING, ORGANS)] * columns
        look = Look(width_mm=85.0, style="contour")
        axes, *_ = draw([Row("a", items)], ["x"] * columns, look, SIDES).axes
        (widths[columns],) = axes.collections[0].get_linewidths()
    assert widths[1] == 0.7 > widths[4] > widths[12] == 0.3


def test_the_scale_bar_is_as_long_as_it_says_along_the_columns(picture):
    (axes,) = draw([Row("a", [panel(picture, None, SPACING, ORGANS)])], ["x"], Look(), SIDES).axes
    first, last = bar(axes).get_xdata()
    # 24 mm are shown: 5 mm is the longest round length below 40% of it
    assert "5 mm" in texts(axes) and (last - first) * 0.8 == pytest.approx(5)
    assert texts(axes)[1:] == ["R", "L"]
    left, right = axes.texts[1:]
    assert left.get_position()[0] < 0.1 and right.get_position()[0] > 0.9


@pytest.mark.parametrize(
    ("width", "length"), [(400, 100), (500, 200), (120, 20), (124.9, 20), (125, 50), (2.4, 0.5)]
)
def test_lengths_of_scale_bars_are_round(width, length):
    assert bar_mm(width) == pytest.approx(length)


@pytest.mark.parametrize(
    ("marks", "expected"), [("first", [1, 0, 1, 0]), ("all", [1, 1, 1, 1]), ("none", [0] * 4)]
)
def test_which_panels_have_marks(picture, marks, expected):
    box = (slice(0, 10), slice(0, 10))
    wholes = [panel(picture, None, SPACING, ORGANS)] * 2
    parts = [panel(picture, None, SPACING, ORGANS, box=box)] * 2
    axes = draw([Row("a", [*wholes, *parts])], list("wxyz"), Look(marks=marks), SIDES).axes
    assert [bar(each) is not None for each in axes] == expected


def test_pixels_keep_their_shape_in_mm(picture):
    figure = draw([Row("a", [panel(picture, None, SPACING, ORGANS)])], ["x"], Look(), SIDES)
    assert figure.axes[0].get_aspect() == 2.0


@pytest.mark.parametrize(("width", "font"), [(85, 7), (180, 7), (85, 10), (60, 5)])
def test_all_text_has_its_size_and_lies_within_the_figure(picture, labels, width, font):
    item = panel(picture, labels, SPACING, ["liver", "left_adrenal_gland"], note="Dice 0.5, long")
    rows = [Row("case_0123456789, slice 100", [item] * 6)] * 2
    titles = ["image", "truth", "stage 1", "stage 2", "a_run-with-a_long/name", "stages differ"]
    look = Look(width_mm=width, font_pt=font)
    figure = draw(rows, titles, look, SIDES, [""] * 5 + ["mean Dice 0.712 (6 cases)"])
    assert figure.get_figwidth() * 25.4 == pytest.approx(width)
    FigureCanvasAgg(figure).draw()
    whole = figure.bbox
    found = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label)]
    found += [axes.yaxis.label for axes in figure.axes] + figure.legends[0].get_texts()
    boxes = [text.get_window_extent() for text in found if text.get_text().strip()]
    assert len(boxes) == 6 + 12 + 2 + 1
    for box in boxes:
        assert box.x0 >= -1 and box.x1 <= whole.width + 1
        assert box.y0 >= -1 and box.y1 <= whole.height + 1
    marks = [text for axes in figure.axes for text in axes.texts]
    assert {text.get_fontsize() for text in [*found, *marks]} == {font}
    # titles don't run into each other
    spans = sorted(
        (axes.title.get_window_extent().x0, axes.title.get_window_extent().x1)
        for axes in figure.axes[:6]
    )
    assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:], strict=False))

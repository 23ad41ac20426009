import base64
import io
import json
import re
from html import unescape
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest

from pipeline.reporting import drawing

NAN = float("nan")
LINES = {"total": [3.0, 2.0, NAN], "coarse": [1.0, NAN, 2.0]}


def plots(name: str = "a") -> list[str]:
    return [
        drawing.line_plot(name, [0, 1, 2], LINES, label="loss"),
        drawing.strip_plot(name, {"liver": [0.5, NAN, 0.7], "aorta": [NAN]}, "Dice"),
    ]


def decoded(uri: str) -> np.ndarray:
    """(rows, columns, 3) in [0, 1]."""
    png = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return matplotlib.image.imread(io.BytesIO(png), format="png")[..., :3]


@pytest.mark.parametrize("svg", plots())
def test_plots_are_bare_elements_in_the_pages_colours(svg):
    assert svg.startswith("<svg") and svg.endswith("</svg>")
    assert ElementTree.fromstring(svg).get("viewBox")
    assert "currentColor" in svg and "var(--series-1)" in svg
    assert not [colour for colour in drawing.PAGE_COLOURS if colour in svg]
    assert "metadata" not in svg and "<!" not in svg
    assert 'width="' not in svg.split(">")[0]


def test_dots_are_links_with_titles():
    links = {"liver": [("#case=a", "a: 0.5"), ("#case=b", "b"), ("#case=c&organ=x", "<c>")]}
    groups = {"liver": [0.5, NAN, 0.7], "aorta": [0.2]}
    svg = drawing.strip_plot("a", groups, "Dice", links)
    found = re.findall(r"<a ([^>]*)><title>(.*?)</title>", svg)
    assert found == [
        ('xlink:href="#case=a"', "a: 0.5"),
        ('xlink:href="#case=c&amp;organ=x"', "&lt;c&gt;"),
    ]
    assert svg.count("<a ") == 2


def test_lines_carry_their_values_and_the_places_of_their_axes():
    svg = drawing.line_plot("a", [0, 1, 2], LINES, label="loss")
    traces = json.loads(unescape(re.search(r'data-traces="([^"]*)"', svg)[1]))
    assert traces["label"] == "epoch"
    total, coarse = traces["lines"]
    assert total == {"name": "total", "x": [0, 1], "y": [3, 2]}
    assert coarse == {"name": "coarse", "x": [0, 2], "y": [1, 2]}
    drawn = re.search(r'<g id="a-series-0-0">\s*<path d="M ([\d.]+) ([\d.]+)', svg)
    for value, place, scale in ((0, drawn[1], "x_scale"), (3, drawn[2], "y_scale")):
        first, start, last, end = traces[scale]
        at = start + (value - first) / (last - first) * (end - start)
        assert at == pytest.approx(float(place), abs=0.01)
    for part in ("series-0-0", "series-1-0", "key-0-0", "key-1-0"):
        assert f'id="a-{part}"' in svg


def test_dots_have_titles_that_lead_nowhere():
    with drawing.canvas("a", (3, 2)) as (axes, svg):
        drawing.title_each(axes.scatter([1, 2], [3, 4]), ["one: <1>", "two"])
    assert re.findall(r"<g><title>(.*?)</title>", svg[0]) == ["one: &lt;1&gt;", "two"]
    assert "<a" not in svg[0] and "title:" not in svg[0]


def test_the_same_numbers_give_the_same_bytes():
    assert plots() == plots()


def test_ids_of_two_plots_differ_and_references_are_kept():
    first, second = (re.findall(r'\bid="([^"]+)"', svg) for svg in (plots("a")[0], plots("b")[0]))
    assert first and not set(first) & set(second)
    used = re.findall(r'(?:href="|url\()#([^")]+)', plots("a")[0])
    assert used and set(used) <= set(first)


def test_words_are_escaped_and_not_read_as_formulas():
    svg = drawing.strip_plot("a", {"<b>$x$ & y": [0.5]}, "Dice")
    assert "&lt;b&gt;$x$ &amp; y" in svg


def test_a_picture_without_labels_is_grey():
    image = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    picture = decoded(drawing.slice_picture(image))
    assert picture.shape == (6 * 48, 8 * 48, 3)  # 384 / 8 = 48
    assert np.ptp(picture, axis=2).max() == 0
    np.testing.assert_allclose(picture[24::48, 24::48, 0], image, atol=0.02)


def test_large_slices_keep_their_size():
    picture = decoded(drawing.slice_picture(np.zeros((500, 400), np.float32)))
    assert picture.shape == (500, 400, 3)


def test_organs_have_their_colours_where_they_are():
    labels = np.zeros((12, 16), np.uint8)
    labels[2:7, 3:8], labels[7:10, 9:15] = 1, 2
    image = np.full(labels.shape, 0.5, np.float32)
    colours = ["#ff0000", "#0000ff"]
    picture = decoded(drawing.slice_picture(image, labels, colours))
    factor = 24
    assert picture.shape == (12 * factor, 16 * factor, 3)
    centres = picture[factor // 2 :: factor, factor // 2 :: factor]
    np.testing.assert_allclose(centres[4, 5], [0.4 + 0.3, 0.3, 0.3], atol=0.005)
    np.testing.assert_allclose(centres[8, 12], [0.3, 0.3, 0.4 + 0.3], atol=0.005)
    np.testing.assert_allclose(centres[0, 0], [0.5] * 3, atol=0.005)
    # the outline is the organ's own colour
    np.testing.assert_allclose(picture[2 * factor, 5 * factor], [1, 0, 0], atol=0.005)


def test_differences_have_a_line_at_no_difference():
    values = {"one": [-0.2, 0.1]}
    fitted, difference = (
        drawing.strip_plot("a", values, "Dice", scale=scale) for scale in ("fitted", "difference")
    )
    lines = [svg.count('id="a-line2d_') for svg in (fitted, difference)]
    assert lines[1] == lines[0] + 1 and "\N{MINUS SIGN}0.2" in fitted

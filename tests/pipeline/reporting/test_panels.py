import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.patches import Rectangle

from pipeline.reporting import panels
from pipeline.reporting.panels import Row, draw, framed, panel, zoom_box

ORGANS = ["liver", "aorta"]
SPACING = (3.0, 0.8, 0.8)


def mask(shape, top, left, height, width) -> np.ndarray:
    result = np.zeros(shape, bool)
    result[top : top + height, left : left + width] = True
    return result


def test_a_zoom_box_is_square_and_around_the_organ():
    rows, columns = zoom_box(mask((100, 120), 40, 60, 10, 20), SPACING)
    # 1.6 times the larger side, the organ in the middle
    assert (rows, columns) == (slice(29, 61), slice(54, 86))


def test_a_tiny_organ_keeps_some_of_its_surroundings():
    rows, columns = zoom_box(mask((100, 120), 0, 119, 1, 1), SPACING)
    # 16% of the shorter side, and inside the slice
    assert (rows, columns) == (slice(0, 16), slice(104, 120))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.tuples(st.integers(8, 60), st.integers(8, 60)))
def test_a_zoom_box_stays_in_the_slice_and_is_square_in_mm(seed, shape):
    random = np.random.default_rng(seed)
    spacing = (1.0, *random.uniform(0.5, 2, 2))
    organ = np.zeros(shape, bool)
    organ[tuple(random.integers(0, shape, (3, 2)).T)] = True
    box = zoom_box(organ, spacing)
    assert all(0 <= side.start < side.stop <= size for side, size in zip(box, shape, strict=True))
    sides = [(side.stop - side.start) * mm for side, mm in zip(box, spacing[1:], strict=True)]
    assert abs(sides[0] - sides[1]) <= max(spacing[1:]) + 1e-9
    small = (np.ptp(np.argwhere(organ), axis=0) + 1) * spacing[1:] * 1.6
    if small.max() < (np.multiply(shape, spacing[1:])).min():
        assert organ[box].sum() == organ.sum()


@pytest.fixture
def picture() -> np.ndarray:
    return np.linspace(0, 1, 40 * 30, dtype=np.float32).reshape(40, 30)


def test_a_box_is_cut_out_of_image_and_labels(picture):
    labels = mask((40, 30), 10, 5, 4, 4).astype(np.uint8)
    box = (slice(8, 16), slice(4, 12))
    whole = panel(picture, labels, SPACING, ORGANS)
    part = panel(picture, labels, SPACING, ORGANS, box=box)
    np.testing.assert_array_equal(
        part.pixels, panel(picture[box], labels[box], SPACING, ORGANS).pixels
    )
    assert framed(whole, box, (40, 30)).frame == pytest.approx((4 / 30, 8 / 40, 8 / 30, 8 / 40))


def test_differences_are_marked_and_nothing_else(picture):
    first = mask((40, 30), 10, 5, 4, 4).astype(np.uint8)
    second = 2 * mask((40, 30), 10, 5, 4, 2).astype(np.uint8)
    found = panels.difference_panel(picture, first, second, SPACING).pixels
    grey = np.ptp(found, axis=2) == 0
    factor = found.shape[0] // 40
    # label 1 became 2 in one half and 0 in the other
    assert not grey[12 * factor, 6 * factor] and not grey[12 * factor, 8 * factor]
    assert grey[30 * factor, 20 * factor] and grey[: 9 * factor].all()
    same = panels.difference_panel(picture, first, first, SPACING).pixels
    assert (np.ptp(same, axis=2) == 0).all()


def test_rows_titles_notes_frames_and_legend_are_drawn(picture):
    items = [
        panel(picture, None, SPACING, ORGANS),
        panel(picture, None, SPACING, ORGANS, note="Dice 0.50"),
    ]
    items[0] = framed(items[0], (slice(0, 20), slice(0, 15)), (40, 30))
    figure = draw(
        [Row("a, slice 1", items), Row("b, slice 2", items)], ["x", "y"], ["liver", "aorta"]
    )
    axes = figure.axes
    assert [a.get_title() for a in axes] == ["x", "y", "", ""]
    assert [a.get_ylabel() for a in axes] == ["a, slice 1", "", "b, slice 2", ""]
    assert axes[1].get_xlabel() == "Dice 0.50"
    (box,) = [patch for patch in axes[0].patches if isinstance(patch, Rectangle)]
    assert box.get_bbox().bounds == pytest.approx((0, 0.5, 0.5, 0.5))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["liver", "aorta"]


def test_pixels_keep_their_shape_in_mm(picture):
    figure = draw([Row("a", [panel(picture, None, (3, 1.0, 0.5), ORGANS)])], ["x"], ["liver"])
    assert figure.axes[0].get_aspect() == 2.0

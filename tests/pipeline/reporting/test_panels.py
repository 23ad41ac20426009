import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.reporting import panels
from pipeline.reporting.panels import framed, panel, zoom_box

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
        part.pixels(), panel(picture[box], labels[box], SPACING, ORGANS).pixels()
    )
    assert framed(whole, box).frame == pytest.approx((4 / 30, 8 / 40, 8 / 30, 8 / 40))


def test_fills_alone_are_lighter_than_with_outlines_and_images_are_grey(picture):
    item = panel(picture, mask((40, 30), 10, 5, 9, 9).astype(np.uint8), SPACING, ORGANS)
    both, fill = item.pixels(), item.pixels(outlined=False)
    image = item.pixels(filled=False)
    factor = len(both) // 40
    corner, middle = (10 * factor, 5 * factor), (14 * factor, 9 * factor)
    assert (both[corner] != fill[corner]).any() and (both[middle] == fill[middle]).all()
    assert (fill[corner] != image[corner]).any() and (np.ptp(image, axis=2) == 0).all()


def test_a_panel_knows_the_labels_that_it_shows(picture):
    labels = 2 * mask((40, 30), 10, 5, 4, 4).astype(np.uint8)
    assert list(panel(picture, labels, SPACING, ORGANS).shown) == ["aorta"]
    assert panel(picture, None, SPACING, ORGANS).shown == {}


def test_differences_are_marked_and_nothing_else(picture):
    first = mask((40, 30), 10, 5, 4, 4).astype(np.uint8)
    second = 2 * mask((40, 30), 10, 5, 4, 2).astype(np.uint8)
    found = panels.difference_panel(picture, first, second, SPACING).pixels()
    grey = np.ptp(found, axis=2) == 0
    factor = found.shape[0] // 40
    # label 1 became 2 in one half and 0 in the other
    assert not grey[12 * factor, 6 * factor] and not grey[12 * factor, 8 * factor]
    assert grey[30 * factor, 20 * factor] and grey[: 9 * factor].all()
    same = panels.difference_panel(picture, first, first, SPACING).pixels()
    assert (np.ptp(same, axis=2) == 0).all()

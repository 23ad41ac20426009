import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.imaging.geometry import (
    Geometry,
    from_canonical,
    resample_images,
    resample_labels,
    restore_labels,
    to_canonical,
)

ORIENTATIONS = [
    "".join(pair[sign] for pair, sign in zip(axes, signs, strict=True))
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for signs in itertools.product((0, 1), repeat=3)
]


def geometry(codes: str, shape: tuple[int, int, int] = (4, 5, 6)) -> Geometry:
    turn = nib.orientations.axcodes2ornt(tuple(codes))
    affine = np.zeros((4, 4))
    for axis, (direction, sign) in enumerate(turn):
        affine[int(direction), axis] = sign * (axis + 1.5)
    affine[:, 3] = (-7, 11, 13, 1)
    return Geometry(shape, affine)


def test_canonical_axes_are_head_back_and_left():
    array = np.zeros((4, 5, 6), np.uint8)
    # LAS: x grows to the left, y to the front, z to the head
    array[3, 0, 5] = 1
    place = np.argwhere(to_canonical(array, geometry("LAS")))
    assert place.tolist() == [[5, 4, 3]]


def test_canonical_shape_and_spacing():
    turned = geometry("PIR")
    assert turned.orientation == "PIR"
    assert turned.canonical_shape == (5, 4, 6)
    assert turned.canonical_spacing == (2.5, 1.5, 3.5)
    assert to_canonical(np.zeros(turned.shape), turned).shape == (5, 4, 6)


@given(st.sampled_from(ORIENTATIONS), st.tuples(*[st.integers(1, 5)] * 3))
def test_canonical_round_trip_is_exact(codes, shape):
    grid = geometry(codes, shape)
    array = np.arange(np.prod(shape)).reshape(shape)
    canonical = to_canonical(array, grid)
    assert canonical.shape == grid.canonical_shape
    assert np.array_equal(from_canonical(canonical, grid), array)


@given(st.sampled_from(ORIENTATIONS))
def test_canonical_order_does_not_depend_on_how_a_file_stores_it(codes):
    anatomy = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    grid = geometry("SPL")
    stored = from_canonical(anatomy, grid)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("SPL"), nib.orientations.axcodes2ornt(tuple(codes))
    )
    turned = nib.orientations.apply_orientation(stored, turn)
    affine = grid.affine @ nib.orientations.inv_ornt_aff(turn, stored.shape)
    again = to_canonical(turned, Geometry(turned.shape, affine))
    assert np.array_equal(again, anatomy)


def test_from_canonical_refuses_another_shape():
    with pytest.raises(ValueError, match=r"expected shape \(6, 5, 4\), got \(4, 5, 6\)"):
        from_canonical(np.zeros((4, 5, 6)), geometry("LPS"))


def test_resampling_keeps_the_field_of_view():
    ramp = np.arange(4, dtype=np.float32).reshape(1, 1, 4)
    halved = resample_images(ramp, (1, 2))
    assert halved.tolist() == [[[0.5, 2.5]]]
    doubled = resample_images(ramp, (1, 8))
    assert doubled[0, 0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    labels = np.array([[[0, 1], [2, 3]]], np.uint8)
    assert resample_labels(labels, (4, 2))[0].tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]


def test_resampled_labels_go_back_to_the_source_grid():
    grid = geometry("RPI")
    labels = (np.arange(120) % 7).reshape(grid.canonical_shape).astype(np.uint8)
    finer = resample_labels(labels, (15, 12))
    restored = restore_labels(finer, grid)
    assert np.array_equal(restored, from_canonical(labels, grid))

import itertools

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.imaging.geometry import (
    CANONICAL,
    Geometry,
    from_slices,
    recorded_preparation,
    resample_labels,
    restore_labels,
    source_slice,
    source_voxel,
    to_slices,
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
    place = np.argwhere(to_slices(array, geometry("LAS"), CANONICAL))
    assert place.tolist() == [[5, 4, 3]]


def test_axes_of_slices_may_be_any_whole_axes():
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    assert np.array_equal(to_slices(array, geometry("LAS"), "SAL"), array.transpose(2, 1, 0))
    assert np.array_equal(to_slices(array, geometry("LPS"), "SLP"), array.transpose(2, 0, 1))
    assert np.array_equal(to_slices(array, geometry("LPS"), "RPI"), array[::-1, :, ::-1])


def test_shape_and_spacing_of_the_slices():
    turned = geometry("PIR")
    assert turned.orientation == "PIR"
    assert turned.sliced_shape("SPL") == (5, 4, 6)
    assert turned.sliced_spacing("SPL") == (2.5, 1.5, 3.5)
    assert turned.sliced_shape("LAI") == (6, 4, 5)
    assert to_slices(np.zeros(turned.shape), turned, "LAI").shape == (6, 4, 5)


@given(
    st.sampled_from(ORIENTATIONS),
    st.sampled_from(ORIENTATIONS),
    st.tuples(*[st.integers(1, 5)] * 3),
)
def test_the_round_trip_is_exact(codes, axes, shape):
    grid = geometry(codes, shape)
    array = np.arange(np.prod(shape)).reshape(shape)
    slices = to_slices(array, grid, axes)
    assert slices.shape == grid.sliced_shape(axes)
    assert np.array_equal(from_slices(slices, grid, axes), array)
    for index in range(len(slices)):
        place = source_slice(grid, axes, index)
        plane = np.take(array, [place], codes.index(stored_along(codes, axes)))
        assert set(plane.ravel()) == set(slices[index].ravel())


@given(st.sampled_from(ORIENTATIONS), st.sampled_from(ORIENTATIONS))
def test_a_pixel_of_a_slice_is_found_in_the_file(codes, axes):
    grid = geometry(codes)
    array = np.arange(4 * 5 * 6).reshape(grid.shape)
    slices = to_slices(array, grid, axes)
    plane = slices.shape[1:]
    for place in [(0, 0, 0), (1, 2, 0), (slices.shape[0] - 1, 0, plane[1] - 1)]:
        assert array[source_voxel(grid, axes, place, plane)] == slices[place]
        # the second of three pixels in the place of one has the same middle
        finer = (place[0], 3 * place[1] + 1, 3 * place[2] + 1)
        wide = (3 * plane[0], 3 * plane[1])
        assert array[source_voxel(grid, axes, finer, wide)] == slices[place]


def stored_along(codes: str, axes: str) -> str:
    """The letter of the source axis that holds the slices."""
    pair = next(pair for pair in ("RL", "AP", "SI") if axes[0] in pair)
    return next(letter for letter in codes if letter in pair)


@given(st.sampled_from(ORIENTATIONS), st.sampled_from(ORIENTATIONS))
def test_slices_do_not_depend_on_how_a_file_stores_them(codes, axes):
    anatomy = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    grid = geometry(axes)
    stored = from_slices(anatomy, grid, axes)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(axes), nib.orientations.axcodes2ornt(tuple(codes))
    )
    turned = nib.orientations.apply_orientation(stored, turn)
    affine = grid.affine @ nib.orientations.inv_ornt_aff(turn, stored.shape)
    again = to_slices(turned, Geometry(turned.shape, affine), axes)
    assert np.array_equal(again, anatomy)


def test_from_slices_refuses_another_shape():
    with pytest.raises(ValueError, match=r"expected shape \(6, 5, 4\), got \(4, 5, 6\)"):
        from_slices(np.zeros((4, 5, 6)), geometry("LPS"), CANONICAL)


def test_a_record_without_axes_means_the_canonical_ones():
    assert recorded_preparation({"spacing_mm": 1.0}) == {"axes": "SPL", "spacing_mm": 1.0}
    assert recorded_preparation(None) == {"axes": "SPL", "spacing_mm": None}
    assert recorded_preparation({"axes": "RAS"})["axes"] == "RAS"
    for wrong in ("RLS", "SP", "spl", "SPX", 3, None):
        with pytest.raises(ValueError, match="expected three letters"):
            recorded_preparation({"axes": wrong})


def test_resampling_labels_keeps_the_field_of_view():
    labels = np.array([[[0, 1], [2, 3]]], np.uint8)
    assert resample_labels(labels, (4, 2))[0].tolist() == [[0, 1], [0, 1], [2, 3], [2, 3]]


def test_resampled_labels_go_back_to_the_source_grid():
    grid = geometry("RPI")
    for axes in ("SPL", "SAL", "RIA"):
        labels = (np.arange(120) % 7).reshape(grid.sliced_shape(axes)).astype(np.uint8)
        _, rows, columns = labels.shape
        finer = resample_labels(labels, (3 * rows, 3 * columns))
        restored = restore_labels(finer, grid, axes)
        assert np.array_equal(restored, from_slices(labels, grid, axes))

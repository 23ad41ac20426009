import numpy as np
import pytest
import torch

from pipeline.imaging.intensity import to_unit
from pipeline.training.packed import PackedSlices, StoredSlice, packed, places_of

HU = (-150.3, 250.7)


def stored(shape=(5, 7), kind=np.int16, bounds=HU, seed=0) -> StoredSlice:
    random = np.random.default_rng(seed)
    image = random.uniform(-300, 400, shape).astype(kind)
    label = random.integers(0, 9, shape, np.uint8)
    return StoredSlice(torch.from_numpy(image), torch.from_numpy(label), bounds)


@pytest.mark.parametrize("kind", [np.int16, np.float32])
@pytest.mark.parametrize("bounds", [HU, (-1000.0, 1000.0), (0.0, 1e-3), (-7.1, 1e30)])
def test_an_image_is_mapped_to_the_bits_that_prediction_sees(kind, bounds):
    low, high = (float(np.float32(edge)) for edge in bounds)
    one = stored((67, 129), kind, (low, high))
    if kind == np.float32:
        one.image[0, :4] = torch.tensor([low, high, torch.nan, -0.0])
    before = one.image.clone()
    unit = one.unit()
    assert unit.dtype == torch.float32
    expected = to_unit(one.image.numpy(), low, high)
    assert np.array_equal(unit.numpy().view(np.int32), expected.view(np.int32))
    assert torch.equal(one.image.view(torch.uint8), before.view(torch.uint8))


def test_slices_of_any_size_and_type_come_out_of_one_tensor_as_they_went_in():
    shapes = [(5, 7), (1, 1), (8, 4), (3, 3)]
    kinds = [np.int16, np.int16, np.float32, np.float32]
    slices = [stored(*each, seed=seed) for seed, each in enumerate(zip(shapes, kinds, strict=True))]
    whole = packed(slices)
    assert whole.data.dtype == torch.uint8 and len(whole) == 4
    for one, other in zip(whole.to(torch.device("cpu")).all(), slices, strict=True):
        assert one.image.dtype == other.image.dtype and torch.equal(one.image, other.image)
        assert torch.equal(one.label, other.label) and one.bounds == HU
        assert one.image.untyped_storage().data_ptr() == whole.data.data_ptr()
        assert one.label.untyped_storage().data_ptr() == whole.data.data_ptr()


def test_int16_takes_three_bytes_a_pixel_and_what_ends_beyond_the_limit_has_no_place():
    layouts = [((20, 24), torch.int16, HU), ((20, 24), torch.float32, HU)]
    first, second = places_of(layouts)
    assert (first.start, first.end, second.end) == (0, 3 * 480, 8 * 480)
    assert places_of(layouts, 8 * 480 - 1) == [first]
    assert places_of(layouts, 100) == [] and len(PackedSlices.of([], [])) == 0


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_channels_have_bounds_of_their_own_to_the_bit(kind):
    low, high = (tuple(float(np.float32(e)) for e in edges) for edges in ((-7.1, 0), (99.3, 1e3)))
    one, other = stored((2, 5, 7), kind, (low, high)), stored((6, 4), kind, seed=1)
    one = one._replace(label=one.label[0])
    found, alone = packed([one, other]).all()
    assert torch.equal(found.image, one.image) and torch.equal(found.label, one.label)
    assert torch.equal(alone.image, other.image) and torch.equal(alone.label, other.label)
    expected = to_unit(one.image.numpy(), low, high)
    assert np.array_equal(found.unit().numpy().view(np.int32), expected.view(np.int32))

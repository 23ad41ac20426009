import numpy as np
import pytest

from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Percentile, Window
from pipeline.imaging import channel_volumes, channels, intensity
from pipeline.imaging.channels import ChannelFile
from pipeline.imaging.geometry import preparation, recorded_preparation, to_slices
from pipeline.imaging.resize import resample_images
from pipeline.imaging.scans import Source, of_channels
from pipeline.imaging.volumes import Volume
from tests.pipeline.conftest import AFFINE, save_nifti, tiny_image

CT, MR = (
    Window(kind="window", low=-125.0, high=275.0),
    Percentile(kind="percentile", low=0.5, high=99.5),
)
BOTH = {"T2": 0, "ADC": 1}


def four(count: int = 3) -> np.ndarray:
    """(x, y, z, C), each channel other values."""
    return np.stack([tiny_image() * (place + 1) + place for place in range(count)], -1)


def volume(array: np.ndarray) -> Volume:
    from pipeline.imaging.geometry import Geometry

    return Volume(array, Geometry(array.shape[:3], AFFINE))


def test_files_and_places_give_the_same_volume(tmp_path):
    whole = four()
    path = save_nifti(tmp_path / "whole.nii.gz", whole)
    apart = [save_nifti(tmp_path / f"{n}.nii", whole[..., n]) for n in range(3)]
    first = channel_volumes.read([ChannelFile(path, 2), ChannelFile(path, 0)])
    second = channel_volumes.read([ChannelFile(apart[2]), ChannelFile(apart[0])])
    assert np.array_equal(first.array, whole[..., [2, 0]])
    assert np.array_equal(second.array, first.array)
    assert first.geometry.shape == (10, 20, 30) and first.channels == 2
    assert np.array_equal(first.affine, second.affine)
    one = channel_volumes.read([ChannelFile(path, 1)])
    assert one.array.shape == (10, 20, 30) and one.channels == 1


def test_a_place_that_a_file_lacks(tmp_path):
    path = save_nifti(tmp_path / "whole.nii.gz", four(2))
    with pytest.raises(UserError, match="with 3 or more channels.*found 10 x 20 x 30 x 2"):
        channel_volumes.read([ChannelFile(path, 0), ChannelFile(path, 2)])


@pytest.mark.parametrize("axes", ["SPL", "LIP", "PIR"])
def test_each_channel_is_sliced_as_if_it_were_alone(axes):
    whole = volume(four(2))
    slices = to_slices(whole.array, whole.geometry, axes)
    assert slices.flags.c_contiguous
    for place, array in enumerate(channels.each(whole.array)):
        alone = to_slices(array, whole.geometry, axes)
        assert np.array_equal(slices[:, place], alone)
        resampled = resample_images(slices, (13, 17))
        assert np.array_equal(resampled[:, place], resample_images(alone, (13, 17)))
    assert np.array_equal(channels.first(slices), slices[:, 0])


def test_each_channel_has_a_rule_of_its_own():
    array = four(2)
    low, high = intensity.all_bounds(array, (CT, MR))
    assert (low[0], high[0]) == (-125, 275)
    assert (low[1], high[1]) == intensity.bounds(array[..., 1], MR)
    slices = np.ascontiguousarray(np.moveaxis(array, -1, 1))
    unit = intensity.to_unit(intensity.clip(slices, low, high), low, high)
    for place in range(2):
        edges = low[place], high[place]
        alone = intensity.to_unit(intensity.clip(slices[:, place], *edges), *edges)
        assert np.array_equal(unit[:, place].view(np.int32), alone.view(np.int32))
    assert intensity.all_bounds(array[..., 0], CT) == (-125, 275)


def test_rules_and_channels_go_into_records_and_back():
    for rules in (CT, (CT, MR)):
        assert intensity.rule(intensity.record(rules)) == rules
    kept = recorded_preparation(preparation("SPL", None, {"ADC": 1, "T2": 0}))
    assert list(channels.recorded(kept).items()) == [("ADC", 1), ("T2", 0)]
    assert channels.pictured(kept) == "ADC"
    assert "channels" not in preparation("SPL", None, {})
    assert channels.recorded(None) == {} and channels.pictured(preparation("SPL", None)) is None
    with pytest.raises(ValueError, match="channels: expected a name and a number of each"):
        recorded_preparation({"channels": ["T2"]})


def found(*paths) -> list[Source]:
    return [Source(path.name.partition(".")[0], path) for path in paths]


def test_scans_of_numbered_files(tmp_path):
    given = found(*(tmp_path / f"{name}.nii" for name in ("a_0001", "b_0000", "a_0000", "b_0001")))
    assert of_channels(given, {}, None) == given
    a, b = of_channels(given, BOTH, None)
    assert (a.name, [path.stem for path in a.paths]) == ("a", ["a_0000", "a_0001"])
    assert (b.name, b.path.stem) == ("b", "b_0000")
    (only,) = of_channels(given[:1], {"ADC": 1}, None)
    assert (only.name, only.paths) == ("a", (tmp_path / "a_0001.nii",))
    with pytest.raises(UserError, match="expected the channels ADC.*found no b_0001"):
        of_channels(given[1:2], {"ADC": 1}, None)


def test_scans_whose_channels_lie_in_one_file(tmp_path):
    path = save_nifti(tmp_path / "visit_2024.nii", four(2))
    flat = save_nifti(tmp_path / "flat.nii", tiny_image())
    (whole,) = of_channels(found(path), {"ADC": 1, "T2": 0}, None)
    assert (whole.name, whole.places) == ("visit_2024", (1, 0))
    of_four, of_three = of_channels(found(path, flat), {"ADC": 1}, None)
    assert (of_four.places, of_three.places) == ((1,), None)


def test_names_that_two_scans_would_share(tmp_path):
    paths = [tmp_path / "a_0000.nii", tmp_path / "a_0001.nii", tmp_path / "a.nii"]
    with pytest.raises(UserError, match="its label map would be named a"):
        of_channels(found(*paths), BOTH, None)


def test_a_name_for_the_one_scan(tmp_path):
    parts = found(tmp_path / "t2.nii", tmp_path / "adc.nii")
    (scan,) = of_channels(parts, BOTH, "../x y")
    assert (scan.name, scan.parts) == ("x_y", tuple(parts))
    with pytest.raises(UserError, match="the model takes scans of one channel; leave it out"):
        of_channels(parts, {}, "x")
    (tmp_path / "series").mkdir()
    with pytest.raises(UserError, match="a DICOM series is one channel.*with --case NAME"):
        of_channels(found(tmp_path / "series"), BOTH, None)

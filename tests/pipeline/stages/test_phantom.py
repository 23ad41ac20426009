import nibabel as nib
import numpy as np
import pytest

from pipeline.datasets.synapse import ORGANS, image_path, label_path
from pipeline.imaging.geometry import CANONICAL, Geometry, to_slices
from pipeline.stages import phantom

SIZE = 64
# HU of the organs in the portal venous phase, wide enough for every patient
HU = {
    "spleen": (95, 150),
    "right kidney": (130, 215),
    "left kidney": (130, 215),
    "gallbladder": (-10, 50),
    "liver": (85, 130),
    "stomach": (0, 60),
    "aorta": (150, 235),
    "pancreas": (70, 115),
}


def canonical(number, size=SIZE):
    image, label, affine = phantom.make_case(1, number, size)
    grid = Geometry(image.shape, affine)
    return to_slices(image, grid, CANONICAL), to_slices(label, grid, CANONICAL), grid


@pytest.fixture(scope="module")
def cases():
    return {number: canonical(number) for number in range(1, 9)}


def organ(label, name):
    return label == ORGANS[name][0]


def test_organs_have_their_intensities(cases):
    for image, label, _ in cases.values():
        for name, (low, high) in HU.items():
            if organ(label, name).any():
                assert low < np.median(image[organ(label, name)]) < high, name


def test_body_lies_in_air_and_has_bone_and_noise(cases):
    for image, _, _ in cases.values():
        assert image.dtype == np.int16
        assert image[:, :3, :3].mean() == pytest.approx(-1000, abs=15)
        assert 7 < image[:, :3, :3].std() < 20
        assert image.max() > 350


def test_every_organ_but_one_gallbladder_is_there(cases):
    for number, (_, label, _) in cases.items():
        missing = [name for name in ORGANS if not organ(label, name).any()]
        assert missing == (["gallbladder"] if number == 2 else [])


def test_other_organs_keep_their_raw_labels(cases):
    assert all({5, 9} <= set(np.unique(label)) <= set(range(14)) for _, label, _ in cases.values())


def test_sides_of_the_patient(cases):
    for _, label, _ in cases.values():
        row, column = {}, {}
        for name in set(ORGANS) - {"gallbladder"}:
            _, rows, columns = np.nonzero(organ(label, name))
            row[name], column[name] = rows.mean(), columns.mean()
        # columns go to the patient's left, rows to the back
        assert column["liver"] < column["aorta"] < column["spleen"]
        assert column["right kidney"] < column["aorta"] < column["left kidney"]
        assert row["stomach"] < row["aorta"] < label.shape[1]


def test_organs_can_be_seen_at_the_size_of_the_demo():
    for number in (1, 3):
        _, label, _ = canonical(number, 128)
        for name in ORGANS:
            areas = organ(label, name).sum((1, 2))
            assert areas[areas > 0].mean() >= 25, name


def test_cases_differ(cases):
    spacings = {grid.sliced_spacing(CANONICAL) for _, _, grid in cases.values()}
    assert len(spacings) == len(cases)
    assert all(4 <= between <= 6 for between, _, _ in spacings)
    assert all(18 <= len(image) <= 28 for image, _, _ in cases.values())
    assert len({len(image) for image, _, _ in cases.values()}) > 3


def test_axes_are_stored_in_several_ways(cases):
    stored = [grid.orientation for _, _, grid in cases.values()]
    assert stored == list(phantom.ORIENTATIONS)


def test_a_case_depends_on_its_number_seed_and_size_alone(tmp_path):
    phantom.run(tmp_path / "many", cases=3, seed=1, size=32)
    image, label, affine = phantom.make_case(1, 3, 32)
    written = nib.load(image_path(tmp_path / "many", "img0003"))
    assert np.array_equal(written.get_fdata(), image)
    assert np.array_equal(nib.load(label_path(tmp_path / "many", "img0003")).get_fdata(), label)
    np.testing.assert_allclose(written.affine, affine, atol=1e-4)
    assert not np.allclose(phantom.make_case(2, 3, 32)[2], affine)


def test_same_bytes_and_files_already_there_are_kept(tmp_path):
    phantom.run(tmp_path / "a", cases=2, seed=1, size=32)
    phantom.run(tmp_path / "b", cases=2, seed=1, size=32)
    for path in (image_path, label_path):
        first, second = path(tmp_path / "a", "img0002"), path(tmp_path / "b", "img0002")
        assert first.read_bytes() == second.read_bytes()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.gz")}
    image_path(tmp_path / "a", "img0001").write_bytes(b"")
    phantom.run(tmp_path / "a", cases=2, seed=1, size=32)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.gz")}
    changed = [path for path in before if before[path] != after[path]]
    assert changed == [image_path(tmp_path / "a", "img0001")]
    assert set(after) == set(before)

"""What training slices look like, and the warnings about a scan and labels unlike them."""

import copy
import json

import numpy as np
import pytest

from pipeline.inference import usual
from pipeline.inference.unlike import compare
from pipeline.inference.usual import MEASURES, SCAN, Tally

SPACING = (3.0, 2.0, 1.0)
ORGANS = ["aorta", "kidney"]
SIDE = 64


def case(slices=10, shift=(0, 0), aorta=6, kidney=12, brightness=0.5, spacing=SPACING):
    """A grey middle in which an aorta and, in the lower half of the slices, a kidney lie."""
    images = np.zeros((slices, SIDE, SIDE), np.float32)
    labels = np.zeros(images.shape, np.uint8)
    images[:, 8:56, 8:56] = brightness
    rows, columns = 30 + shift[0], 28 + shift[1]
    labels[:, rows : rows + aorta, columns : columns + aorta] = 1
    labels[: slices // 2, 20 : 20 + kidney, 40 : 40 + kidney] = 2
    images[labels == 1] = 0.8 * brightness / 0.5
    return images, labels, spacing


def tally(images, labels, spacing, places=None):
    found = Tally(len(ORGANS), spacing)
    for place in range(len(images)) if places is None else places:
        found.add(images[place], labels[place], place)
    return found


@pytest.fixture(scope="module")
def known():
    """Of four cases of which every third slice is labelled."""
    shifts = [(0, 0), (1, 0), (-1, 1), (0, -2)]
    cases = [(tally(*case(shift=shift), range(0, 10, 3)), 10) for shift in shifts]
    return usual.ranges(ORGANS, cases)


def unlike(known, *arguments, **changes):
    images, labels, spacing = arguments or case(**changes)
    return compare(known, ORGANS, zip(images, labels, strict=True), spacing, "SPL")


def warned(known, *arguments, **changes):
    return unlike(known, *arguments, **changes).sentences


def test_ranges_are_those_of_the_slices(known):
    assert known["cases"] == 4 and known["slices"] == 16
    aorta = known["organs"]["aorta"]
    assert aorta["slices"] == 16 and aorta["area_mm2"] == [72.0, 72.0]
    # 36 pixels of 2 mm2 in all 10 slices of 3 mm
    assert aorta["millilitres"] == [2.16, 2.16]
    # two of four slices show it, as if half of ten did
    assert known["organs"]["kidney"]["millilitres"] == [pytest.approx(4.32)] * 2
    assert aorta["largest_piece"] == [1.0, 1.0]
    low, high = aorta["row_mm"]
    assert high - low == pytest.approx(
        2 * 2 * (1 - 36 * 0.3 / (48 * 48 * 0.5 + 36 * 0.3)), rel=0.05
    )
    assert known["scan"]["gap_mm"] == [3.0, 3.0] and known["scan"]["height_mm"] == [128.0, 128.0]
    assert set(known["scan"]) == {*SCAN, "length_mm"} and {*MEASURES} < set(aorta)
    assert aorta["stray"] == [0.0, 0.0]


def test_they_stay_what_they_are_in_a_record(known):
    assert usual.recorded({"usual": json.loads(json.dumps(known))}) == known
    assert usual.recorded({}) is None
    damaged = copy.deepcopy(known)
    damaged["organs"]["aorta"]["area_mm2"] = [1]
    with pytest.raises(ValueError, match="unpack"):
        usual.recorded({"usual": damaged})
    with pytest.raises((ValueError, TypeError)):
        usual.recorded({"usual": [1, 2]})


def test_a_scan_like_those_of_the_training_is_not_warned_of(known):
    assert warned(known) == []
    assert warned(known, slices=14, shift=(1, 1)) == []


def test_an_organ_of_one_voxel_is_told_of(known):
    images, labels, spacing = case()
    labels[labels == 2] = 0
    labels[3, 22, 44] = 2
    assert warned(known, images, labels, spacing) == ["kidney: 0.006 ml, in training 4.32 ml."]


def test_a_large_volume_is_told_without_an_exponent(known):
    large = copy.deepcopy(known)
    large["organs"]["kidney"]["millilitres"] = [594.04, 3104.0]
    assert "kidney: 4.32 ml, in training 594 to 3,100 ml." in warned(large)


def test_an_organ_that_all_training_cases_show_is_missed(known):
    images, labels, spacing = case()
    labels[labels == 1] = 0
    (found,) = warned(known, images, labels, spacing)
    assert found == "aorta: not found; 4 of 4 training cases show it."
    (found,) = warned(known, images, np.zeros_like(labels), spacing)
    assert found == "not found: aorta, kidney; 4 or more of 4 training cases show each of them."


@pytest.mark.parametrize(
    ("shift", "towards"),
    [((12, 0), "back"), ((-12, 0), "front"), ((0, 24), "left"), ((0, -24), "right")],
)
def test_an_organ_at_another_place_is_told_of_with_the_side(known, shift, towards):
    found = warned(known, shift=shift)
    assert any(
        text.startswith("aorta: 100% of it lies") and f"farther to the {towards} than" in text
        for text in found
    ), found


def test_the_scan_its_labels_and_what_is_missing_are_told_apart(known):
    images, labels, _ = case(shift=(12, 0))
    labels[labels == 2] = 0
    found = unlike(known, images, labels, (9.0, 2.0, 1.0))
    assert found.scan == ["its slices lie 9 mm apart, in training 3 mm."]
    assert found.not_found == ["kidney: not found; 4 of 4 training cases show it."]
    assert list(found.organs) == ["aorta"] and found.organs["aorta"][0].endswith("ml.")
    assert found.sentences[2:] == [f"aorta: {text}" for text in found.organs["aorta"]]


def test_an_outline_that_is_a_little_off_is_not_told_of(known):
    images, labels, spacing = case()
    wide = labels.copy()
    wide[:, 29:36, 28:34] = 1  # a row of the darker surroundings more
    assert warned(known, images, wide, spacing) == []


def test_an_organ_in_pieces_is_told_of(known):
    images, labels, spacing = case()
    labels[labels == 2] = 0
    labels[:5, 20:32, 40:45] = labels[:5, 20:32, 47:52] = 2
    found = warned(known, images, labels, spacing)
    assert found == [
        "kidney: 100% of it lies in slices that show it in more pieces than in training."
    ]


def test_an_organ_that_lies_apart_along_the_slices_is_told_of(known):
    images, labels, spacing = case()
    labels[5:7] = 0  # 6 mm without the aorta
    assert warned(known, images, labels, spacing) == []
    labels[4:8] = 0
    kidney, aorta = (labels == 2).sum(), [72.0 * 4, 72.0 * 2]
    assert kidney and warned(known, images, labels, spacing) == [
        f"aorta: {min(aorta) / sum(aorta):.0%} of it lies apart from the rest, after 10 mm or more "
        "of slices without it."
    ]
    older = copy.deepcopy(known)
    del older["organs"]["aorta"]["stray"]
    assert warned(older, images, labels, spacing) == []


def test_what_lies_apart_in_training_is_not_told_of():
    images, labels, spacing = case()
    labels[4:8][labels[4:8] == 1] = 0
    cases = [(tally(images, labels, spacing, range(0, 10, 3)), 10)] * 2
    found = usual.ranges(ORGANS, cases)["organs"]
    # slices 0, 3 and 9 show the aorta, slice 6 between them doesn't
    assert found["aorta"]["stray"] == [pytest.approx(1 / 3, abs=1e-4)] * 2
    assert found["kidney"]["stray"] == [0.0, 0.0]
    assert warned(usual.ranges(ORGANS, cases * 2), images, labels, spacing) == []


def test_another_grid_and_another_brightness_are_told_of(known):
    coarse = warned(known, spacing=(9.0, 2.0, 1.0))
    assert coarse[0] == "its slices lie 9 mm apart, in training 3 mm."
    bright = warned(known, brightness=0.9)
    assert bright[0].startswith("it is brighter than the training's scans")
    assert any(text.startswith("kidney: 100% of it is brighter") for text in bright)


def test_a_stack_of_another_length_is_told_of(known):
    assert known["scan"]["length_mm"] == [30.0, 30.0]
    assert warned(known, slices=14) == []
    (found,) = (text for text in warned(known, slices=20) if "cover" in text)
    assert found == "its slices cover 60 mm, in training 30 mm."


def test_a_brightness_that_is_spread_otherwise_is_told_of(known):
    images, labels, spacing = case()
    middle = images == 0.5
    images[middle] = np.where(np.arange(middle.sum()) % 2, 0.3, 0.7)  # the same mean
    found = unlike(known, images, labels, spacing).scan
    assert len(found) == 1 and found[0].startswith("its brightness is spread otherwise than in")
    older = {name: value for name, value in known.items() if not name.startswith("histogram")}
    assert unlike(older, images, labels, spacing).scan == []


def test_a_reversed_stack_is_told_of_by_the_order_of_the_organs(known):
    assert known["order"] == [["kidney", "aorta"]]
    images, labels, spacing = case()
    assert unlike(known, images[::-1], labels[::-1], spacing).scan == [
        "1 of 1 pairs of organs follow each other the other way round than in every training case "
        "(from the feet on aorta before kidney): is the stack of slices reversed?"
    ]
    # an organ that isn't found has no place
    labels[labels == 2] = 0
    assert unlike(known, images[::-1], labels[::-1], spacing).scan == []


def ramp(slices, steep=1.0, seed=0):
    """One organ in a body that is brighter, and lies lower, from slice to slice."""
    rng = np.random.default_rng(seed)
    images = np.zeros((slices, SIDE, SIDE), np.float32)
    for index, image in enumerate(images):
        along = (index + 0.5) / slices
        first = 8 + round(8 * along * steep)
        image[first : first + 40, 8:56] = 0.3 + 0.3 * steep * along
        image += 0.02 * rng.random(image.shape, np.float32)
    labels = np.zeros(images.shape, np.uint8)
    labels[:, 30:36, 30:36] = 1
    return images, labels


def along(images, labels, places=None):
    found = Tally(1, SPACING)
    for place in range(len(images)) if places is None else places:
        found.add(images[place], labels[place], place)
    return found


def test_a_reversed_stack_of_one_organ_is_told_of_by_the_course_of_its_slices():
    cases = [(along(*ramp(n, seed=n), range(n % 3, n, 3)), n) for n in (24, 31, 40, 22)]
    found = json.loads(json.dumps(usual.ranges(["aorta"], cases)))
    assert found["order"] == [] and usual.recorded({"usual": found}) == found
    images, labels = ramp(35, seed=5)

    def told(images):
        return compare(found, ["aorta"], zip(images, labels, strict=True), SPACING, "SPL").scan

    assert told(images) == []
    assert told(images[::-1]) == [
        "its brightness changes along the slices as in the training's scans turned round: is the "
        "stack of slices reversed?"
    ]
    found["course"]["lines"] = found["course"]["lines"][:2]
    with pytest.raises(ValueError, match="courses"):
        usual.recorded({"usual": found})


def test_a_course_that_tells_no_direction_is_not_kept():
    both = [(along(*ramp(n, seed=n)), n) for n in (24, 31, 40)]
    other = [(along(*(part[::-1] for part in ramp(28, seed=3))), 28)]
    assert "course" in usual.ranges(["aorta"], both)
    assert "course" not in usual.ranges(["aorta"], both + other)
    assert "course" not in usual.ranges(["aorta"], both[:2])
    flat = [(along(*ramp(n, steep=0, seed=n)), n) for n in (24, 31, 40)]
    assert "course" not in usual.ranges(["aorta"], flat)


def test_of_a_rare_organ_nothing_is_said(known):
    rare = copy.deepcopy(known)
    rare["organs"]["kidney"]["slices"] = 4
    images, labels, spacing = case()
    labels[labels == 2] = 0
    assert warned(rare, images, labels, spacing) == []


def test_a_dark_slice_has_its_middle():
    dark = Tally(1, (1.0, 1.0, 1.0))
    labels = np.zeros((5, 5), np.uint8)
    labels[2, 3] = 1
    dark.add(np.zeros((5, 5), np.float32), labels)
    assert dark.slices[0, 0].tolist() == [1.0, 0.0, 1.0, 0.0, 1.0]

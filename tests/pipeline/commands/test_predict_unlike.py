"""Warnings of scans and labels unlike training: in the terminal and in the scan's record."""

import numpy as np
import pytest

from pipeline.imaging import scans
from pipeline.imaging.geometry import CANONICAL
from pipeline.imaging.scan_intensity import find_bounds
from pipeline.inference import usual
from pipeline.inference.scan_slices import ScanSlices
from pipeline.inference.usual import Tally
from pipeline.scoring.calibration import Known
from pipeline.scoring.predicted_dice import FEWEST, Pair, calibrate
from pipeline.scoring.uncertainty import Signs
from tests.pipeline.commands.test_predict import SIDE, WINDOW, predict, threshold
from tests.pipeline.conftest import save_nifti

SLICES = 6
LAS = np.diag([-2.0, 2.0, 5.0, 1.0])  # x to the left; 2 mm pixels, slices 5 mm apart
RAS = np.diag([2.0, 2.0, 5.0, 1.0])
AIR, BODY, AORTA = -1000, 40, 250  # HU


def abdomen(place: tuple[int, int] = (21, 16), side: int = 3) -> np.ndarray:
    """(x, y, z) HU: a body of soft tissue, and in it a contrasted aorta left of the middle."""
    array = np.full((SIDE, SIDE, SLICES), AIR, np.int16)
    array[4:28, 6:26] = BODY
    x, y = place
    array[x : x + side, y : y + side] = AORTA
    return array


def one_voxel() -> np.ndarray:
    array = abdomen(side=0)
    array[22, 17, 2] = AORTA
    return array


def specks() -> np.ndarray:
    array = abdomen(side=0)
    array[18:26:2, 14:20:3] = AORTA
    return array


def mr() -> np.ndarray:
    """Numbers without a unit, none below 0: air dark, fat bright."""
    array = abdomen()
    return np.select([array == AIR, array == BODY], [0, 180], 260).astype(np.int16)


def wide() -> np.ndarray:
    """The same body in a field of twice the width and height."""
    return np.pad(abdomen(), ((SIDE // 2,) * 2, (SIDE // 2,) * 2, (0, 0)), constant_values=AIR)


@pytest.fixture(scope="module")
def known(tmp_path_factory) -> dict:
    """Of four scans whose aorta moves by a pixel or two."""
    cases = []
    for number, place in enumerate([(21, 16), (22, 16), (21, 17), (20, 15)]):
        path = save_nifti(
            tmp_path_factory.mktemp("learned") / f"{number}.nii.gz", abdomen(place), LAS
        )
        (source,) = scans.find([path])
        scan = scans.read(source, None)
        images = ScanSlices(scan, find_bounds(source.name, scan, WINDOW), CANONICAL, None)
        tally = Tally(1, images.pixel_spacing)
        for image in images[0:SLICES]:
            tally.add(image, (image > 0.5).astype(np.uint8))
        cases.append((tally, SLICES))
    return usual.ranges(["aorta"], cases)


def warned(known, folder, array, affine=LAS, **changes) -> list[str]:
    path = save_nifti(folder / "scan.nii.gz", array, affine)
    predictor = threshold(names=["aorta"], usual=known, **changes)
    return predict(path, folder / "out", predictor)["warnings"]


def test_a_scan_like_those_of_the_training_has_no_warning(known, tmp_path):
    assert warned(known, tmp_path, abdomen((21, 15))) == []


@pytest.mark.parametrize(
    ("array", "affine", "sentence"),
    [
        (one_voxel(), LAS, "aorta: 0.02 ml, in training 1.08 ml."),
        (abdomen(side=0), LAS, "aorta: not found; 4 of 4 training cases show it."),
        (abdomen((21, 7)), LAS, "aorta: 100% of it lies 16 mm farther to the back than in any"),
        (abdomen((8, 16)), LAS, "farther to the right than in any training slice."),
        (specks(), LAS, "lies in slices that show it in more pieces than in training."),
        (mr(), LAS, "it is brighter than the training's scans"),
        (mr(), LAS, "values from 0 to 260 where the run's window is"),
        (wide(), LAS, "its field of view is 128 mm wide, in training 64 mm."),
        (abdomen(), RAS, "farther to the right than in any training slice."),
        (abdomen(), np.diag([-2.0, 2.0, 12.0, 1.0]), "its slices lie 12 mm apart, in training 5"),
    ],
    ids=[
        *(
            "one voxel",
            "none",
            "on the spine",
            "on the other side",
            "in pieces",
            "MR by brightness",
        ),
        *("MR by its numbers", "field of view", "orientation", "gap"),
    ],
)
def test_what_is_unlike_training_is_told_and_recorded(
    known, tmp_path, capsys, array, affine, sentence
):
    found = warned(known, tmp_path, array, affine)
    assert any(sentence in text for text in found), found
    printed = capsys.readouterr().err
    assert all(f"warning: scan: {text}" in printed for text in found)


def test_of_labels_unlike_training_the_predicted_dice_begins_at_0(known, tmp_path, capsys):
    pairs = [
        Pair(f"case{k}", "aorta", Signs(0.05 * k, 0.05 * k), 0.5 + 0.04 * k) for k in range(FEWEST)
    ]
    believed = Known(calibrate(pairs), "10 test cases")
    predictor = threshold(names=["aorta"], usual=known)
    thick = np.diag([-2.0, 2.0, 9.0, 1.0])
    for name, array, affine in (
        ("like", abdomen(), LAS),
        ("spine", abdomen((21, 7)), LAS),
        ("thick", abdomen(), thick),
    ):
        path = save_nifti(tmp_path / f"{name}.nii.gz", array, affine)
        said = predict(path, tmp_path / "out", predictor, believed)["predicted_dice"]
        assert (said["organs"]["aorta"]["low"] == 0) == (name == "spine")
        printed = " ".join(capsys.readouterr().err.split())
        assert ("begin at 0 where labels are unlike training's: aorta" in printed) == (
            name == "spine"
        )
        assert ("the scan is unlike those of training" in printed) == (name == "thick")


def test_labels_of_a_model_of_phantoms_are_told_to_mean_nothing(known, tmp_path, capsys):
    found = warned(known, tmp_path, abdomen(), identity={"data_set": "phantom"})
    assert found == [
        "the model has learned from made-up volumes; its labels of a real scan mean nothing."
    ]
    assert f"warning: scan: {found[0]}" in capsys.readouterr().err

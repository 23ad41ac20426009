import numpy as np
import pytest
from matplotlib.image import imread

from pipeline.imaging.display import OPPOSITE
from pipeline.imaging.geometry import PLANES
from pipeline.reporting import overlay


def labels(slices: int = 40) -> np.ndarray:
    found = np.zeros((slices, 20, 30), np.uint8)
    found[10:30, 5:10, 5:10] = 1
    return found


def test_slices_are_spread_over_those_that_show_an_organ():
    chosen = overlay.choose_slices(labels(), 12)
    assert len(chosen) == 12 and chosen[0] == 10 and chosen[-1] == 29
    assert overlay.choose_slices(np.zeros((5, 2, 2), np.uint8), 12) == [0, 1, 2, 3, 4]
    assert overlay.choose_slices(labels(11), 12) == [10]


def test_the_picture_shows_the_image_and_the_organs_colour(tmp_path):
    images = np.full((40, 20, 30), 0.5, np.float32)
    overlay.write_overlay(tmp_path / "a.png", images, labels(), ["spleen"], (3, 1, 1), "SPL")
    pixels = imread(tmp_path / "a.png")[..., :3]
    grey = np.isclose(pixels, 0.5, atol=0.01).all(-1)
    tint = np.isclose(pixels, [0.68, 0.556, 0.275], atol=0.02).all(-1)  # 45% of #e69f00
    assert grey.mean() > 0.3
    assert 0.02 < tint.mean() / grey.mean() < 0.1  # 25 of 600 pixels


def test_the_same_prediction_gives_the_same_bytes(tmp_path):
    images = np.random.default_rng(0).random((40, 20, 30), np.float32)
    for name in ("a.png", "b.png"):
        overlay.write_overlay(tmp_path / name, images, labels(), ["spleen"], (3, 1, 1), "SPL")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("axes", ["SPL", "SAL", "LIP"])
def test_projections_show_every_voxel_in_its_place_and_all_of_an_organ(axes):
    # one bright voxel, first along each of the axes; the organ is the three beside it
    images = np.zeros((4, 5, 6), np.float32)
    images[0, 0, 0] = 1
    found = np.zeros(images.shape, np.uint8)
    found[0, 0, 1:4] = 1
    all_three = overlay.projections(images, found, (3.0, 1.0, 2.0), axes)
    assert [PLANES[one.axes[0]] for one in all_three] == ["axial", "coronal", "sagittal"]
    length = dict(zip(axes, images.shape, strict=True))
    spacing = dict(zip(axes, (3.0, 1.0, 2.0), strict=True))
    for one in all_three:
        # the display's own directions: rows and columns grow so
        rows, columns = {"axial": "PL", "coronal": "IL", "sagittal": "IP"}[PLANES[one.axes[0]]]
        letters = [next(a for a in axes if a in (d, OPPOSITE[d])) for d in (rows, columns)]
        assert one.image.shape == tuple(length[letter] for letter in letters)
        assert (one.row_mm, one.column_mm) == tuple(spacing[letter] for letter in letters)
        # where an axis of the slices grows the other way, its first voxel is shown last
        ends = tuple(
            0 if letter == wanted else length[letter] - 1
            for letter, wanted in zip(letters, (rows, columns), strict=True)
        )
        assert one.image[ends] == 1 and one.image.sum() == 1
        assert one.organs[1].sum() == (1 if one.axes[0] == axes[2] else 3)

import numpy as np
from matplotlib.image import imread

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

import math

import numpy as np
from matplotlib.image import imread

from pipeline.training import progress_picture
from pipeline.training.history import EPOCH_COLUMNS, History
from pipeline.training.progress_picture import NAME, ProgressPicture


def history(epochs: int, validated: bool = True, stages: bool = True) -> History:
    found = History()
    for epoch in range(epochs):
        parts = (0.5, 0.4) if stages else (None, None)
        row = (
            epoch,
            10 * epoch + 10,
            1e-3,
            0.4 if stages else None,
            math.exp(-epoch),
            *parts,
            None,
        )
        found.epochs.append(dict(zip(EPOCH_COLUMNS, row, strict=True)))
        if validated and epoch % 2:
            found.add_validation({"liver": epoch / 10, "left kidney": epoch / 20})
    return found


def test_it_is_drawn_with_whatever_there_is(tmp_path):
    sizes = []
    for validated, stages in ((True, True), (False, False)):
        progress_picture.draw(history(5, validated, stages), tmp_path / NAME)
        picture = imread(tmp_path / NAME)
        assert np.ptp(picture[..., :3]) > 0.5
        sizes.append(picture.shape[0])
    assert sizes[0] > sizes[1]  # without a panel for the validations


def test_it_is_drawn_at_first_and_at_the_end_and_seldom_between(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        progress_picture, "draw", lambda found, path: drawn.append(path.write_bytes(b"png"))
    )
    picture = ProgressPicture(tmp_path)
    picture.update(History())
    assert not picture.path.exists()
    for epochs in (1, 2, 3):
        picture.update(history(epochs))
    assert len(drawn) == 1 and picture.path.read_bytes() == b"png"
    for _ in range(2):
        picture.update(history(3), last=True)
    assert len(drawn) == 2

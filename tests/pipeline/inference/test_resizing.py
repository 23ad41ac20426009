import numpy as np
import pytest
import torch
from scipy import ndimage

from pipeline.inference.resizing import LINEAR, PUBLISHED, resizing
from pipeline.inference.volume import predict_batches
from tests.pipeline.inference.test_volume import Bands, smooth


@pytest.mark.parametrize("plane", [(512, 512), (257, 257), (48, 40), (20, 33), (1, 7), (32, 32)])
def test_the_published_resizing_is_scipys_zoom_both_ways(plane):
    random = np.random.default_rng(0)
    image = random.random((2, *plane), np.float32)
    small = PUBLISHED.to_model(image, (32, 32), "cpu")
    assert small.shape == (2, 1, 32, 32) and small.dtype == torch.float32
    for found, source in zip(small, image, strict=True):
        expected = ndimage.zoom(source, (32 / plane[0], 32 / plane[1]), order=3)
        assert np.array_equal(found[0].numpy(), expected)
    logits = torch.from_numpy(random.random((2, 5, 32, 32), np.float32))
    labels = PUBLISHED.to_slices(logits, plane).argmax(1).numpy()
    for found, source in zip(labels, logits.argmax(1).numpy(), strict=True):
        expected = ndimage.zoom(source, (plane[0] / 32, plane[1] / 32), order=0)
        assert np.array_equal(found, expected)


def test_records_name_a_resizing_or_mean_the_linear_one():
    assert (
        resizing({}) is resizing({"resizing": None}) is resizing({"resizing": "linear"}) is LINEAR
    )
    assert resizing({"resizing": "published"}) is PUBLISHED
    with pytest.raises(ValueError, match="expected one of linear, published, found 'cubic'"):
        resizing({"resizing": "cubic"})


@pytest.mark.parametrize("way", [LINEAR, PUBLISHED])
def test_labels_leave_the_device_once_a_batch_with_their_probabilities(way, monkeypatch):
    moved = []
    real = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: moved.append(self) or real(self))
    stages = ("mean", "coarse", "fine")
    batches = list(
        predict_batches(
            Bands(),
            smooth((7, 40, 36)),
            stages,
            batch_size=3,
            resizing=way,
            probabilities="fine",
        )
    )
    assert [(batch.first, len(batch)) for batch in batches] == [(0, 3), (3, 3), (6, 1)]
    # all stages' labels at once, and the probabilities
    assert [tuple(tensor.shape[:2]) for tensor in moved[:2]] == [(3, 3), (3, 3)]
    assert len(moved) == 2 * len(batches)
    for batch in batches:
        assert all(tensor.dtype == np.uint8 for tensor in batch.labels.values())
        largest = batch.probabilities.max(0)
        chosen = np.take_along_axis(batch.probabilities, batch.labels["fine"][None], 0)[0]
        assert np.array_equal(chosen, largest)

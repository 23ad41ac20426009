import base64
import io
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipeline.reporting import browser_case
from pipeline.reporting.browser import windows
from pipeline.reporting.browser_case import Volume, pack, refining

ORGANS = 3


@pytest.fixture
def volume() -> Volume:
    """Six slices; the prediction misses organ 2 on slice 4 and shows a little of 1 on slice 1."""
    truth = np.zeros((6, 8, 10), np.uint8)
    truth[1:5, 1:4, 1:4] = 1
    truth[3:5, 5:7, 5:9] = 2
    prediction = truth.copy()
    prediction[4][truth[4] == 2] = 0
    prediction[1, 1, 1] = 0
    images = np.linspace(0, 1, truth.size, dtype=np.float32).reshape(truth.shape)
    layers = {"truth": truth, "prediction": prediction, "coarse": truth, "fine": prediction}
    return Volume("a", images, layers, (3.0, 2.0, 0.5))


def labels_of(entry: dict, slice_: dict) -> np.ndarray:
    """(layers, rows, columns), as the page makes them of a packed slice."""
    data = zlib.decompress(base64.b64decode(slice_["labels"]))
    wide = len(slice_["combinations"]) > 256
    places = np.frombuffer(data, "<u2" if wide else "u1")
    found = np.array(slice_["combinations"])[places]
    return found.T.reshape(-1, entry["rows"], entry["columns"])


def test_labels_come_back_to_the_pixel_and_images_nearly(volume):
    entry, size = pack(volume, ORGANS, [], 10**6)
    assert [item["index"] for item in entry["slices"]] == list(range(6))
    assert size == sum(len(item["image"]) + len(item["labels"]) for item in entry["slices"])
    for item in entry["slices"]:
        expected = [labels[item["index"]] for labels in volume.layers.values()]
        np.testing.assert_array_equal(labels_of(entry, item), expected)
        picture = Image.open(io.BytesIO(base64.b64decode(item["image"])))
        found = np.asarray(picture.convert("L"), float) / 255
        np.testing.assert_allclose(found, volume.images[item["index"]], atol=0.06)
    assert (entry["width_mm"], entry["height_mm"]) == (5, 16)


def test_more_combinations_than_a_byte_holds(volume):
    rng = np.random.Generator(np.random.Philox(key=1))
    layers = {name: rng.integers(0, 200, (1, 30, 30), np.uint8) for name in volume.layers}
    many = replace(volume, images=np.zeros((1, 30, 30), np.float32), layers=layers)
    entry, _ = pack(many, 200, [], 10**6)
    assert len(entry["slices"][0]["combinations"]) > 256
    expected = [labels[0] for labels in layers.values()]
    np.testing.assert_array_equal(labels_of(entry, entry["slices"][0]), expected)


def test_a_case_opens_where_its_errors_are_largest(volume):
    entry, _ = pack(volume, ORGANS, [], 10**6)
    assert entry["worst"] == 4
    assert entry["organs"] == [1, 4, None]
    right = replace(volume, layers={**volume.layers, "prediction": volume.layers["truth"]})
    entry, _ = pack(right, ORGANS, [], 10**6)
    assert entry["worst"] == 3 and entry["organs"] == [1, 3, None]  # most of the organ


def test_without_room_the_slices_that_matter_come_first(volume):
    everything, _ = pack(volume, ORGANS, [], 10**6)
    sizes = {s["index"]: len(s["image"]) + len(s["labels"]) for s in everything["slices"]}
    room = sizes[4] + sizes[1] + sizes[5]
    entry, size = pack(volume, ORGANS, [5], room)
    assert [item["index"] for item in entry["slices"]] == [1, 4, 5] and size == room
    entry, size = pack(volume, ORGANS, [5], room - 1)
    assert [item["index"] for item in entry["slices"]] == [1, 4] and size < room
    assert pack(volume, ORGANS, [], 0) == (everything | {"slices": []}, 0)


def test_large_slices_are_made_smaller(volume, monkeypatch):
    monkeypatch.setattr(browser_case, "LABEL_SIDE", 5)
    monkeypatch.setattr(browser_case, "IMAGE_SIDE", 5)
    entry, _ = pack(volume, ORGANS, [], 10**6)
    assert (entry["rows"], entry["columns"]) == (4, 5)
    item = entry["slices"][3]
    np.testing.assert_array_equal(labels_of(entry, item)[0], volume.layers["truth"][3][::2, ::2])
    assert Image.open(io.BytesIO(base64.b64decode(item["image"]))).size == (5, 4)
    assert (entry["width_mm"], entry["height_mm"]) == (5, 16)


@pytest.mark.parametrize("number", [1, 2, 7, 8, 100])
def test_every_beginning_of_the_refining_order_is_spread_evenly(number):
    order = list(refining(number))
    assert sorted(order) == list(range(number))
    for length in range(2, number):
        gaps = np.diff([-1, *sorted(order[:length]), number])
        assert gaps.max() <= 4 * number / length


def test_windows_are_in_the_unit_of_the_images():
    ct = windows((-125.0, 275.0), "window")
    assert [w["name"].split(",")[0] for w in ct] == ["whole range", "soft tissue", "liver"]
    assert (ct[2]["low"], ct[2]["high"]) == (0.275, 0.65)
    assert [w["name"] for w in windows((-2000.0, 2000.0), "window")][-1] == "bone, -500 to 1300 HU"
    mr = windows((0.0, 812.0), "percentile")
    assert all("HU" not in w["name"] for w in mr) and (mr[1]["low"], mr[1]["high"]) == (0, 0.5)

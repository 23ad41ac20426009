"""A test case's slices for the page's case browser.

Images are WebP. Labels are arrays that the page inflates and colours: those of an image would have
to be read back from a canvas, which is not exact in browsers that guard against fingerprinting.
"""

import base64
import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.imaging import channels
from pipeline.imaging.display import shown, shown_spacing
from pipeline.reporting.pictures import read_prediction
from pipeline.shards.case import ShardReader

IMAGE_SIDE, LABEL_SIDE = 384, 512  # pixels; longer sides are made shorter
QUALITY = 65  # of WebP, 0 to 100


@dataclass(frozen=True)
class Volume:
    """A case as the browser shows it, in the radiological display.

    Attributes:
        case: its id.
        images: (slices, rows, columns) in [0, 1], of several channels the first.
        layers: "truth", one for each model and, of a model of two stages, "coarse" and "fine" to
            labels (slices, rows, columns).
        spacing_mm: along slice, row and column.
        judged: layers whose errors say where to look first.
    """

    case: str
    images: NDArray[np.float32]
    layers: Mapping[str, NDArray[np.uint8]]
    spacing_mm: tuple[float, float, float]
    judged: Sequence[str] = ("prediction",)


def read_volume(
    prepared: Path, axes: str, case: str, maps: Mapping[str, Path], judged: Sequence[str]
) -> Volume:
    """A test case with its labels.

    Args:
        prepared: published folder of the prepare stage.
        axes: of its slices.
        case: its id.
        maps: layer to the NIfTI file of its labels.
        judged: of the volume.

    Raises:
        UserError: files are missing or damaged.
    """
    reader = ShardReader(prepared / "shards" / f"{case}.parquet")
    images, truth = reader.read_volume()
    layers = {"truth": truth}
    for name, path in maps.items():
        layers[name] = read_prediction(path, reader.shape[1:], axes)
    return Volume(
        case,
        shown(channels.first(images), axes),
        {name: shown(labels, axes) for name, labels in layers.items()},
        shown_spacing(reader.spacing_mm, axes),
        judged,
    )


def pack(
    volume: Volume, organs: int, wanted: Sequence[int], room: int
) -> tuple[dict[str, Any], int]:
    """A case for the page.

    Args:
        volume: of the case.
        organs: their number.
        wanted: slices to have first, after those with the largest errors.
        room: characters that images and labels may take.

    Returns:
        The case's value for JSON, and how many characters its images and labels take.
    """
    worst, by_organ = _largest_errors(volume, organs)
    first = [worst, *(place for place in by_organ if place is not None), *wanted]
    packed: dict[int, dict[str, Any]] = {}
    size = 0
    for index in dict.fromkeys([*first, *refining(len(volume.images))]):
        entry = _pack_slice(volume, index)
        length = len(entry["image"]) + len(entry["labels"])
        if size + length > room:
            break
        packed[index] = entry
        size += length
    _, row_mm, column_mm = volume.spacing_mm
    rows, columns = volume.images.shape[1:]
    step = _step(rows, columns)
    value = {
        "case": volume.case,
        "total": len(volume.images),
        "rows": -(-rows // step),
        "columns": -(-columns // step),
        "width_mm": round(columns * column_mm, 4),
        "height_mm": round(rows * row_mm, 4),
        "layers": list(volume.layers),
        "worst": worst,
        "organs": by_organ,
        "slices": [{"index": index, **packed[index]} for index in sorted(packed)],
    }
    return value, size


def _largest_errors(volume: Volume, organs: int) -> tuple[int, list[int | None]]:
    """The slice with the largest error, and that of each organ.

    Without an error it is the slice with most of the organ, None for an organ that isn't there.
    """
    errors, amounts = [], []
    for index, truth in enumerate(volume.layers["truth"]):
        found = np.zeros(organs, np.int64)
        for layer in volume.judged:
            predicted = volume.layers[layer][index]
            wrong = truth != predicted
            found += sum(_counts(labels[wrong], organs) for labels in (truth, predicted))
        errors.append(found)
        amounts.append(_counts(truth, organs))
    error, amount = np.array(errors), np.array(amounts)
    keys = np.where(error.sum(0) > 0, error, amount)
    by_organ = [int(column.argmax()) if column.any() else None for column in keys.T]
    whole = error.sum(1) if error.any() else amount.sum(1)
    return int(whole.argmax()), by_organ


def _counts(labels: NDArray[np.uint8], organs: int) -> NDArray[np.int64]:
    """Pixels of each organ."""
    return np.bincount(labels.ravel(), minlength=organs + 1)[1:]


def refining(number: int) -> Iterator[int]:
    """The indices below `number` in an order of which every beginning is spread evenly."""
    bits = max(1, (number - 1).bit_length())
    for index in range(2**bits):
        place = int(f"{index:0{bits}b}"[::-1], 2)
        if place < number:
            yield place


def _pack_slice(volume: Volume, index: int) -> dict[str, Any]:
    """`image`: a WebP; `labels`: indices of `combinations`, deflated; both in base64.

    A combination is the pixel's label in each layer: where layers agree, as they mostly do, all of
    them take the room of one. There are two bytes a pixel, the lower first, where there are more
    than 256 combinations.
    """
    layers = [labels[index] for labels in volume.layers.values()]
    step = _step(*layers[0].shape)
    layers = [labels[::step, ::step].ravel() for labels in layers]
    places, first = np.zeros(layers[0].size, np.int64), np.zeros(1, np.int64)
    for labels in layers:  # places stay small, however many layers there are
        _, first, places = np.unique(256 * places + labels, return_index=True, return_inverse=True)
    combinations = np.stack([labels[first] for labels in layers], axis=1)
    stored = places.astype("u1" if len(combinations) <= 256 else "<u2")
    return {
        "image": _base64(_webp(volume.images[index])),
        "labels": _base64(zlib.compress(stored.tobytes(), 9)),
        "combinations": combinations.tolist(),
    }


def _step(rows: int, columns: int) -> int:
    """Of the pixels of each side of a label array one in so many is kept."""
    return -(-max(rows, columns) // LABEL_SIDE)


def _webp(image: NDArray[np.float32]) -> bytes:
    picture = Image.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8))
    longest = max(picture.size)
    if longest > IMAGE_SIDE:
        size = [max(1, round(side * IMAGE_SIDE / longest)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.BOX)
    data = io.BytesIO()
    picture.save(data, "WEBP", quality=QUALITY, method=4)
    return data.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()

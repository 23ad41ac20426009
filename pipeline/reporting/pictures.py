"""Pictures of test slices for the report: image, truth and prediction side by side."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.imaging import volumes
from pipeline.reporting import drawing
from pipeline.reporting.inputs import ReportFolders, ReportInputs
from pipeline.scoring import dice
from pipeline.shards.case import ShardReader

RICH = 0.75  # a slice is worth showing with this share of its case's most organs in a slice


def test_pictures(
    folders: ReportFolders, inputs: ReportInputs, number: int
) -> list[dict[str, Any]]:
    """Pictures of `number` test slices, or of all when there are fewer, by case and slice.

    The choice is seeded by the split's hash: the same split shows the same slices, whichever
    model predicted them.
    """
    if number == 0:
        return []
    organs = {}
    for case in inputs.split.cases["test"]:
        reader = ShardReader(folders.prepare / "shards" / f"{case}.parquet")
        organs[case] = (reader.counts[:, 1:] > 0).sum(axis=1)
    seed = int(inputs.split.hash[:16], 16)
    chosen: dict[str, list[int]] = {}
    for case, index in choose_slices(organs, number, np.random.default_rng(seed)):
        chosen.setdefault(case, []).append(index)
    return [
        picture
        for case in sorted(chosen)
        for picture in _case_pictures(folders, inputs, case, sorted(chosen[case]))
    ]


def choose_slices(
    organs: Mapping[str, NDArray[np.integer]], number: int, random: np.random.Generator
) -> list[tuple[str, int]]:
    """Slices spread over the cases, at random among those that show many organs.

    Args:
        organs: case to the number of organs in each of its slices.
        number: how many to choose; fewer when there aren't as many slices.
        random: what chooses.

    Returns:
        (case, slice) pairs, no pair twice. Cases take turns, so two cases differ by one slice at
        most while both have slices left.
    """
    queues = []
    for case in random.permutation(sorted(organs)):
        shuffled = random.permutation(len(organs[case]))
        poor = organs[case] < RICH * organs[case].max(initial=0)
        # rich slices first, in random order; then the others, those with more organs first
        key = np.where(poor, -organs[case].astype(int), -np.inf)
        queues.append((str(case), shuffled[np.argsort(key[shuffled], kind="stable")]))
    turns = range(max((len(queue) for _, queue in queues), default=0))
    pairs = [
        (case, int(queue[turn])) for turn in turns for case, queue in queues if turn < len(queue)
    ]
    return pairs[:number]


def _case_pictures(
    folders: ReportFolders, inputs: ReportInputs, case: str, indices: Iterable[int]
) -> list[dict[str, Any]]:
    names = inputs.manifest.class_names
    colours = [drawing.organ_colour(index) for index in range(len(names))]
    reader = ShardReader(folders.prepare / "shards" / f"{case}.parquet")
    prediction = read_prediction(folders.predictions()[case], reader.shape[1:])
    result = []
    for index in indices:
        item = reader.read(index)
        labels = {"truth": item.label, "prediction": prediction[index]}
        panels = [{"name": "image", "uri": drawing.slice_picture(item.image)}]
        panels += [
            {"name": name, "uri": drawing.slice_picture(item.image, label, colours)}
            for name, label in labels.items()
        ]
        rows, columns = item.image.shape
        _, row_mm, column_mm = item.spacing_mm
        result.append(
            {
                "panels": panels,
                "aspect": f"{columns * column_mm:.6g} / {rows * row_mm:.6g}",
                "caption": f"{case}, slice {index}: {slice_dice_text(**labels)}",
            }
        )
    return result


def read_prediction(path: Path, plane: tuple[int, int]) -> NDArray[np.uint8]:
    """(slice, row, column) at the shard's in-plane size, from the source's grid."""
    volume = volumes.read(path)
    canonical = volumes.to_canonical(volume.array, volume.geometry)
    return volumes.resample_labels(canonical, plane).astype(np.uint8)


def slice_dice_text(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> str:
    """The slice's mean Dice over the organs that are in it or predicted there, in words."""
    shown = np.union1d(truth, prediction)
    values = [dice.dice(truth == label, prediction == label) for label in shown[shown > 0]]
    if not values:
        return "no organ, none predicted"
    return f"Dice {dice.mean(values):.3f} over {len(values)} organ" + "s" * (len(values) > 1)

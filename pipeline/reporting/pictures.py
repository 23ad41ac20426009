"""Pictures of test slices for the report: image, truth and prediction side by side."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core import files, run_folder
from pipeline.core.errors import UserError
from pipeline.imaging import volumes
from pipeline.imaging.channels import pictured
from pipeline.imaging.colours import organ_colours
from pipeline.imaging.display import shown, shown_spacing, sides
from pipeline.imaging.geometry import resample_labels, to_slices
from pipeline.reporting import drawing
from pipeline.reporting.inputs import ReportFolders, ReportInputs
from pipeline.reporting.places import place
from pipeline.scoring import dice
from pipeline.scoring.runs import ScoredRun
from pipeline.scoring.uncertainty import TWO_STAGES
from pipeline.shards.case import ShardReader, Slice
from pipeline.shards.manifest import Manifest, read_manifest

# a slice is preferred if it shows this share or more of the organs of its case's fullest slice
RICH = 0.75
PREDICTION = "predictions"  # folder of a run's label maps


def test_pictures(
    folders: ReportFolders, inputs: ReportInputs, number: int
) -> list[dict[str, Any]]:
    """Pictures of test slices: image, truth and prediction.

    The choice is seeded by the split's hash: the same split shows the same slices, whichever
    model predicted them.

    Args:
        folders, inputs: of the report.
        number: of slices; all are shown when there are fewer.

    Returns:
        For each slice, in the order of case and slice: `panels` (`name` and `uri` of a PNG),
        `aspect` (width / height, as in CSS), `caption` and `place` in the case browser.
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
        for picture in case_pictures(
            folders.prepare,
            inputs.manifest,
            case,
            sorted(chosen[case]),
            {"prediction": folders.label_maps(case)["prediction"]},
        )
    ]


def choose_slices(
    organs: Mapping[str, NDArray[np.integer]], number: int, random: np.random.Generator
) -> list[tuple[str, int]]:
    """Slices spread over the cases, at random among those that show many organs.

    Args:
        organs: case to the number of organs in each of its slices.
        number: how many to choose; fewer when there aren't as many slices.
        random: chooses.

    Returns:
        (case, slice) pairs, each once. Cases take turns, so that each shows as many slices as the
        others, give or take one, while it has any left.
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


def case_pictures(
    prepared: Path, manifest: Manifest, case: str, indices: Iterable[int], maps: Mapping[str, Path]
) -> list[dict[str, Any]]:
    """Pictures of a case's slices, as `test_pictures` gives them.

    Args:
        prepared, manifest: of the prepare stage.
        case: its id.
        indices: of the slices.
        maps: name to the NIfTI file of a model's labels.
    """
    colours = organ_colours(manifest.class_names)
    reader = ShardReader(prepared / "shards" / f"{case}.parquet")
    axes = manifest.axes
    channel = pictured(manifest.preparation)
    image = "image" if channel is None else f"image ({channel})"
    predictions = {
        name: read_prediction(path, reader.shape[1:], axes) for name, path in maps.items()
    }
    result = []
    for index in indices:
        item = shown_slice(reader.read(index), axes)
        predicted = {name: shown(labels[index], axes) for name, labels in predictions.items()}
        panels = [{"name": image, "uri": drawing.slice_picture(item.image)}]
        panels += [
            {"name": name, "uri": drawing.slice_picture(item.image, label, colours)}
            for name, label in ({"truth": item.label} | predicted).items()
        ]
        texts = {name: slice_dice_text(item.label, labels) for name, labels in predicted.items()}
        said = [text if len(texts) == 1 else f"{name} {text}" for name, text in texts.items()]
        rows, columns = item.image.shape
        _, row_mm, column_mm = item.spacing_mm
        result.append(
            {
                "panels": panels,
                "aspect": f"{columns * column_mm:.6g} / {rows * row_mm:.6g}",
                "caption": f"{case}, slice {index}: {'; '.join(said)}",
                "place": place(case, slice=index),
            }
        )
    return result


def shown_slice(item: Slice, axes: str) -> Slice:
    """A slice of a shard with these axes, turned to the radiological display; of several channels
    the first.
    """
    return replace(
        item,
        image=shown(item.picture, axes),
        label=shown(item.label, axes),
        spacing_mm=shown_spacing(item.spacing_mm, axes),
    )


def read_prediction(path: Path, plane: tuple[int, int], axes: str) -> NDArray[np.uint8]:
    """A stored label map at the shard's in-plane size.

    Args:
        path: NIfTI file on the grid of the raw image.
        plane: rows and columns of the shard's slices.
        axes: of the shard's slices.

    Returns:
        Labels (slices, rows, columns).
    """
    volume = volumes.read(path)
    slices = to_slices(volume.array, volume.geometry, axes)
    return resample_labels(slices, plane).astype(np.uint8)


def organ_dice(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> list[float]:
    """Dice of every organ that two label arrays of one shape, or one of them, show."""
    shown = np.union1d(truth, prediction)
    return [dice.dice(truth == label, prediction == label) for label in shown[shown > 0]]


def slice_dice_text(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> str:
    """The slice's mean Dice over the organs that are in it or predicted there, in words."""
    values = organ_dice(truth, prediction)
    if not values:
        return "no organ, none predicted"
    return f"Dice {dice.mean(values):.3f} over {len(values)} organ" + "s" * (len(values) > 1)


@dataclass(frozen=True)
class FigureData:
    """Slices of the test cases with what each run predicts there.

    Attributes:
        prepared: published folder of the prepare stage.
        manifest: of the prepared data.
        runs: the runs, comparable.
    """

    prepared: Path
    manifest: Manifest
    runs: Sequence[ScoredRun]
    _volumes: dict[Path, NDArray[np.uint8]] = field(default_factory=dict)

    @property
    def organs(self) -> list[str]:
        """Organs of the labels 1, 2, ..."""
        return list(self.manifest.class_names)

    @property
    def sides(self) -> tuple[str, str]:
        """Letters for the left and the right edge of a slice, as "R" and "L"."""
        return sides(self.manifest.axes)

    def counts(self, case: str) -> NDArray[np.int64]:
        """True pixels of each organ in each slice, (slices, organs)."""
        return self._reader(case).counts[:, 1:]

    def slice(self, case: str, index: int) -> Slice:
        """Image and truth of one slice, in the radiological display as all that is given here."""
        return shown_slice(self._reader(case).read(index), self.manifest.axes)

    def prediction(self, run: ScoredRun, case: str, index: int) -> NDArray[np.uint8]:
        """Labels (rows, columns) of the stage that the run was scored by."""
        return self._labels(run.folder / PREDICTION / f"{case}.nii.gz", case)[index]

    def stage(self, run: ScoredRun, stage: str, case: str, index: int) -> NDArray[np.uint8]:
        """Labels (rows, columns) of the "coarse" or the "fine" stage."""
        return self._labels(run.folder / "stages" / stage / f"{case}.nii.gz", case)[index]

    def has_stages(self, run: ScoredRun) -> bool:
        """Whether the run's model has two stages, whose label maps were kept."""
        return all((run.folder / "stages" / stage).is_dir() for stage in TWO_STAGES)

    def _reader(self, case: str) -> ShardReader:
        return ShardReader(self.prepared / "shards" / self.manifest.case(case).shard)

    def _labels(self, path: Path, case: str) -> NDArray[np.uint8]:
        """A run's label map (slices, rows, columns), read once."""
        if path not in self._volumes:
            axes = self.manifest.axes
            labels = read_prediction(path, self.manifest.case(case).shape[1:], axes)
            self._volumes[path] = shown(labels, axes)
        return self._volumes[path]


def read_figure_data(prepared: Path, runs: Sequence[ScoredRun]) -> FigureData:
    """The data that runs of the evaluate stage were evaluated on, with their predictions.

    Args:
        prepared: published folder of the prepare stage.
        runs: as `runs.read_runs` gives them.

    Raises:
        UserError: a run without predictions, or evaluated on other data.
    """
    manifest = read_manifest(prepared / "manifest.parquet")
    current = files.sha256(prepared / "manifest.parquet")
    problems = []
    for run in runs:
        record = run.folder / run_folder.PROVENANCE
        if not (run.folder / PREDICTION).is_dir() or not record.is_file():
            problems.append(f"{run.folder}: no predictions there; give folders of hsam evaluate.")
        elif files.read_json(record).get("inputs", {}).get("manifest") != current:
            problems.append(
                f"{run.folder}: was evaluated on other data than {prepared}; name theirs with "
                "--prepared."
            )
    if problems:
        raise UserError(problems)
    return FigureData(prepared, manifest, runs)

"""What figures of slices are drawn from: prepared images and truth, predictions of several runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core import files, run_folder
from pipeline.core.errors import UserError
from pipeline.reporting.pictures import read_prediction
from pipeline.scoring.disagreement import TWO_STAGES
from pipeline.scoring.runs import ScoredRun
from pipeline.shards.case import Manifest, ShardReader, Slice, read_manifest

PREDICTION = "predictions"


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
        """Organ of label 1, 2, ..."""
        return list(self.manifest.class_names)

    def counts(self, case: str) -> NDArray[np.int64]:
        """(slices, organs) true pixels of each organ."""
        return self._reader(case).counts[:, 1:]

    def slice(self, case: str, index: int) -> Slice:
        """Image and truth of one slice."""
        return self._reader(case).read(index)

    def prediction(self, run: ScoredRun, case: str, index: int) -> NDArray[np.uint8]:
        """(rows, columns) labels of the stage that the run was scored by."""
        return self._labels(run.folder / PREDICTION / f"{case}.nii.gz", case)[index]

    def stage(self, run: ScoredRun, stage: str, case: str, index: int) -> NDArray[np.uint8]:
        """(rows, columns) labels of the coarse or the fine stage."""
        return self._labels(run.folder / "stages" / stage / f"{case}.nii.gz", case)[index]

    def has_stages(self, run: ScoredRun) -> bool:
        """Whether the run's model has two stages, scored apart."""
        return all((run.folder / "stages" / stage).is_dir() for stage in TWO_STAGES)

    def _reader(self, case: str) -> ShardReader:
        return ShardReader(self.prepared / "shards" / self.manifest.case(case).shard)

    def _labels(self, path: Path, case: str) -> NDArray[np.uint8]:
        if path not in self._volumes:
            self._volumes[path] = read_prediction(path, self.manifest.case(case).shape[1:])
        return self._volumes[path]


def read_figure_data(prepared: Path, runs: Sequence[ScoredRun]) -> FigureData:
    """Runs of the evaluate stage with the data that they were evaluated on.

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

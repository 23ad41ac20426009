"""Another run's predictions and scores, held against those of a run's page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core import files
from pipeline.core.errors import UserError
from pipeline.core.run_folder import read_provenance
from pipeline.core.trainings import find_scores
from pipeline.reporting.pictures import PREDICTION, read_figure_data
from pipeline.scoring.comparison import comparison
from pipeline.scoring.metrics_file import METRICS
from pipeline.scoring.runs import CASES, ScoredRun, read_runs

THIS, BESIDE = "this model", "beside"  # what the page's own model is called; the other's layer
# parts of a path that say nothing of a run
USUAL = ("evaluate", "results", "out", "")


@dataclass(frozen=True, eq=False)
class Beside:
    """A run that is shown beside the page's own.

    Attributes:
        run: its scores.
        compared: rows of `comparison`, the run minus the page's own, of Dice.
    """

    run: ScoredRun
    compared: Sequence[dict[str, Any]]

    @property
    def name(self) -> str:
        """What the page calls it."""
        return self.run.name

    def label_map(self, case: str) -> Path:
        """The NIfTI file of its prediction of a case."""
        return _label_map(self.run, case)

    def hashes(self) -> dict[str, str]:
        """What the page depends on: name, and SHA-256 of scores and predictions."""
        paths = {name: self.run.folder / name for name in (METRICS, CASES)}
        paths |= {case: self.label_map(case) for case in self.run.case_ids}
        hashed = {f"beside {name}": files.sha256(path) for name, path in paths.items()}
        return hashed | {"beside": self.name}


def read_beside(given: str, runs: Path, prepared: Path, evaluate: Path) -> Beside:
    """The run that `report.beside` names.

    Args:
        given: a run's name, or a folder that `hsam evaluate` wrote.
        runs: folder of the run folders.
        prepared, evaluate: published folders of the stages that the page is of.

    Raises:
        UserError: no such run, one that can't be compared with the page's own, or that has no
            predictions; each problem says that it is of `report.beside`.
    """
    try:
        return _read(given, runs, prepared, evaluate)
    except UserError as error:
        raise UserError([f"report.beside: {problem}" for problem in error.problems]) from None


def _read(given: str, runs: Path, prepared: Path, evaluate: Path) -> Beside:
    folder = find_scores(Path(given), runs)
    own, other = read_runs([evaluate, folder], [THIS, _name(given)])
    if read_provenance(other.folder) == read_provenance(own.folder):
        raise UserError(f"{given} is the run that the report is of; name another, or null.")
    read_figure_data(prepared, [other])
    if missing := [case for case in other.case_ids if not _label_map(other, case).is_file()]:
        raise UserError(
            f"{other.folder}: no prediction of {', '.join(missing)}; evaluate that run again."
        )
    return Beside(other, comparison([own, other], ["dice"]))


def _label_map(run: ScoredRun, case: str) -> Path:
    return run.folder / PREDICTION / f"{case}.nii.gz"


def _name(given: str) -> str:
    """A run's name as it was given, of a folder the last part of its path that says something."""
    if not Path(given).is_dir():
        return given
    parts = [part for part in Path(given).resolve().parts[1:] if part not in USUAL]
    # a study's runs are called alike in all of its arms
    shown = parts[-2:] if parts and parts[-1].startswith("draw-") else parts[-1:]
    return " ".join(shown) or BESIDE

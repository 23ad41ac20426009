"""Reads the scores of several runs, and refuses runs that can't be compared.

Comparable runs have the same test cases, truth, organs and convention.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.core.errors import UserError
from pipeline.scoring.metrics_file import METRICS, read_metrics
from pipeline.scoring.scores import SCORES
from pipeline.scoring.tables import (
    case_schema,
    pretraining_caution,
    read_table,
    tolerance_caution,
    voxel_mm,
)

CASES = "cases.parquet"
# where a run keeps its scores: the folder itself, a folder of results, a run folder, a repository
PLACES = (".", "evaluate", "out", "results/evaluate")


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """One run's scores.

    Attributes:
        name: shown in tables and figures.
        folder: holds metrics.json and cases.parquet.
        cases: the table `cases`, one row a case and organ.
        metrics: content of metrics.json.
    """

    name: str
    folder: Path
    cases: pd.DataFrame
    metrics: dict[str, Any]

    @property
    def case_ids(self) -> list[str]:
        """The test cases, in the table's order."""
        return list(dict.fromkeys(self.cases["case"]))

    @property
    def organs(self) -> list[str]:
        """The organs, in the table's order."""
        return list(dict.fromkeys(self.cases["organ"]))

    @property
    def voxel_mm(self) -> float | None:
        """Longest side of a voxel of its cases, mm; None where it isn't recorded."""
        return voxel_mm(self.metrics)

    def values(self, cases: Sequence[str], organs: Sequence[str]) -> NDArray[np.float64]:
        """Scores as an array.

        Args:
            cases, organs: which ones, in this order.

        Returns:
            (cases, organs, scores), the last axis as in SCORES; NaN where a pair is left out.
        """
        table = self.cases.set_index(["case", "organ"])
        order = pd.MultiIndex.from_product([cases, organs])
        values = table.loc[order, list(SCORES)].to_numpy(np.float64)
        return values.reshape(len(cases), len(organs), len(SCORES))


def longest_voxel_mm(runs: Sequence[ScoredRun]) -> float | None:
    """Longest side of a voxel of the runs' cases, mm; None where none is recorded."""
    return max((run.voxel_mm for run in runs if run.voxel_mm is not None), default=None)


def run_cautions(runs: Sequence[ScoredRun]) -> list[str]:
    """Sentences on tolerances below the voxel size, for every run that differs in it, and on runs
    whose encoder may have seen test images before."""
    found = [tolerance_caution(run.metrics) for run in runs]
    for run in runs:
        if (sentence := pretraining_caution(run.metrics)) is not None:
            found.append(f"{run.name}: {sentence}")
    return list(dict.fromkeys(filter(None, found)))


def read_runs(folders: Sequence[Path], names: Sequence[str] = ()) -> list[ScoredRun]:
    """The scores of runs, in the order given.

    Args:
        folders: each a folder that `hsam evaluate` or `hsam score` wrote, one that holds it as
            `evaluate` or `results/evaluate`, or a run folder of the evaluate stage.
        names: one for each folder; empty: the folders' names, or their whole paths where two
            folders have the same name.

    Raises:
        UserError: no scores there, or runs that can't be compared; lists every problem.
    """
    if names and len(names) != len(folders):
        raise UserError(f"--name: expected one for each of {len(folders)} runs, got {len(names)}.")
    shown = list(names) or _names(folders)
    if len(set(shown)) < len(shown):
        raise UserError(f"runs: expected a different name for each, got {', '.join(shown)}.")
    problems, runs = [], []
    for folder, name in zip(folders, shown, strict=True):
        try:
            runs.append(_read(folder, name))
        except UserError as error:
            problems += error.problems
    for run in runs[1:]:
        problems += _differences(runs[0], run)
    if problems:
        raise UserError(problems)
    return runs


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, or their whole paths where names are not unique."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _read(folder: Path, name: str) -> ScoredRun:
    """One run's scores, from wherever below `folder` they are."""
    scores = next((folder / place for place in PLACES if (folder / place / CASES).is_file()), None)
    if scores is None:
        raise UserError(
            f"{folder}: no {CASES} there; give a folder that hsam evaluate or hsam score wrote."
        )
    cases, metrics = read_table(scores / CASES, case_schema()), read_metrics(scores / METRICS)
    return ScoredRun(name, scores, cases, metrics)


def _differences(first: ScoredRun, other: ScoredRun) -> list[str]:
    """Why two runs can't be compared, one sentence each."""
    problems = []
    for attribute, noun in (("case_ids", "test cases"), ("organs", "organs")):
        expected, found = (set(getattr(run, attribute)) for run in (first, other))
        only = [
            f"only {run.name} has {', '.join(sorted(alone))}"
            for run, alone in ((first, expected - found), (other, found - expected))
            if alone
        ]
        if only:
            problems.append(
                f"{other.folder}: expected the {noun} of {first.folder}; {'; '.join(only)}."
            )
    conventions = [run.metrics["convention"] for run in (first, other)]
    if conventions[0] != conventions[1]:
        problems.append(
            f"{other.folder}: expected convention {conventions[0]} as in {first.folder}, found "
            f"{conventions[1]}; score both with the same."
        )
    if not problems:
        problems += _other_truth(first, other)
    return problems


def _other_truth(first: ScoredRun, other: ScoredRun) -> list[str]:
    """A problem if organs have other sizes in the two runs' truth."""
    sizes = [run.cases.set_index(["case", "organ"])["truth_voxels"] for run in (first, other)]
    differing = sizes[0] != sizes[1].reindex(sizes[0].index)
    cases = list(dict.fromkeys(case for case, _ in sizes[0].index[differing]))
    if not cases:
        return []
    return [
        f"{other.folder}: expected the truth of {first.folder}, found organs of other sizes in "
        f"{', '.join(cases)}; score both against the same volumes."
    ]

"""What Snakemake's rules ask of the studies: inputs, commands and digests of each run's stages.

A study's runs are computed when one is asked for first, so that other targets pay nothing.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from pipeline import datasets
from pipeline.core import sources
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Dataset, stage_params
from pipeline.datasets import phantom
from pipeline.scoring import predictions
from pipeline.studies import files, plan
from pipeline.studies.plan import Run

SCORING = "pipeline.commands.score_predictions"  # the code of runs that are scored alone
# what a copy of a stage's outputs waits for
LAST = {"search": "best.yaml", "train": "model.safetensors", "evaluate": "metrics.json"}


@dataclass(frozen=True)
class Fanout:
    """All runs of all studies, on what they are run on.

    Attributes:
        on: presets and parameter files that every study is run on.
        results: folder of the stages' outputs.
    """

    on: tuple[str, ...]
    results: Path = Path("results")

    @property
    def studies(self) -> list[str]:
        """The names of the studies."""
        return files.names()

    @property
    def folders(self) -> list[str]:
        """The folder of each study in results."""
        return [plan.folder_of(name, self.on) for name in files.names()]

    @cached_property
    def runs(self) -> dict[tuple[str, str], Run]:
        """Every run by its study's folder and its own name, in the order of the studies."""
        studies = plan.load_all(self.on)
        return {(run.study, run.name): run for study in studies for run in study.runs}

    @cached_property
    def doers(self) -> dict[str, Run]:
        """The run that does each work."""
        return plan.doers(self.runs.values())

    def run(self, study: str, name: str) -> Run:
        """The run in a study's folder.

        Raises:
            UserError: the study has no such run, or can't be run on what was given.
        """
        found = self.runs.get((study, name))
        return found or plan.find(f"{self._name(study)}/{name}", self.on)

    def doer(self, run: Run) -> Run | None:
        """The other run whose files this one copies; None where it does its work itself."""
        doer = self.doers.get(run.work, run)
        return None if (doer.study, doer.name) == (run.study, run.name) else doer

    def on_data(self, data: str) -> Run:
        """A run on the prepared volumes of a folder in results."""
        return self._first(run for run in self.runs.values() if run.data == data)

    def on_split(self, split: str) -> Run:
        """A run on the split of a folder in results."""
        return self._first(run for run in self.runs.values() if run.split == split)

    @staticmethod
    def _first(runs: Any) -> Run:
        found: Run | None = next(runs, None)
        if found is None:
            raise UserError("no study has volumes or a split with this hash.")
        return found

    def raw_files(self, run: Run) -> list[str]:
        """All files of the run's data set."""
        cases = datasets.expected_files(run.params.dataset).values()
        return [str(path) for raw in cases for path in raw.files]

    def inputs(self, stage: str, run: Run) -> list[str]:
        """Files that a stage of the run waits for.

        Raises:
            UserError: a run that is scored has no predictions.
        """
        places, doer = run.places(self.results), self.doer(run)
        needed = [places["prepare"] / "manifest.parquet", places["split"] / "split.parquet"]
        if doer is not None:
            needed = [doer.places(self.results)[stage] / LAST[stage]]
            if stage == "evaluate" and run.predictions is None:
                needed.append(places["train"] / LAST["train"])  # scores stand beside their model
        elif run.predictions is not None:
            return [str(path) for path in (*needed, *_predicted(run))]
        if stage == "train" and run.searcher is not None:
            needed.append(places["search"] / LAST["search"])
        if stage == "evaluate" and doer is None:
            names = ("model.json", LAST["train"], "history.csv", "snapshots")
            needed += [places["train"] / name for name in names]
        return [str(path) for path in needed]

    def command(self, stage: str, run: Run, jobs: int, gpus: int) -> str:
        """The shell's command of a stage: a copy, where another run does the work."""
        if stage in LAST and (doer := self.doer(run)) is not None:
            source = doer.places(self.results)[stage]
            return shlex.join(["cp", "-R", f"{source}/.", str(run.places(self.results)[stage])])
        words = ["hsam", stage, "--study", self.full_name(run)]
        for preset in self.on:
            words += ["--on", preset]
        if stage == "prepare":
            words += ["--jobs", str(jobs)]
        if stage in LAST and run.predictions is None:
            words += ["--gpus", str(gpus)]
        return shlex.join(words)

    def gpus(self, stage: str, run: Run) -> int:
        """GPUs that a stage needs: none for a copy."""
        if self.doer(run) is not None or run.predictions is not None:
            return 0
        return run.params.train.devices if stage == "train" else 1

    def reads(self, stage: str, run: Run) -> Mapping[str, Any]:
        """The parameters that a stage reads."""
        return stage_params(run.params, stage)

    def code(self, stage: str, run: Run) -> str:
        """Digest of the code that a stage depends on."""
        if run.predictions is not None and stage == "evaluate":
            return _digest_of(SCORING)
        return _digest(stage, sources.chosen(stage, run.params))

    def report_inputs(self, name: str) -> list[str]:
        """What the report of a study, or of a collection of studies, is made of.

        Predictions that aren't there yet are passed over: no rule makes them.
        """
        found = []
        for study in plan.load(name, self.on):
            for run in study.runs:
                places = run.places(self.results)
                if run.predictions is not None:
                    if predictions.files_in(run.predictions):
                        found.append(places["evaluate"] / LAST["evaluate"])
                    continue
                found += [places["evaluate"] / LAST["evaluate"], places["train"] / LAST["train"]]
        return [str(path) for path in found]

    @property
    def is_twin(self) -> bool:
        """Whether the studies are run on phantoms."""
        return files.PHANTOMS in self.on

    @cached_property
    def twin(self) -> Dataset | None:
        """The phantoms that small twins are run on; None where none is."""
        if not self.is_twin:
            return None
        return next(iter(self.runs.values())).params.dataset

    @property
    def twin_files(self) -> list[str]:
        """Their files."""
        twin = self.twin
        return [] if twin is None else [str(p) for p in phantom.paths(twin.root, twin.phantom)]

    def full_name(self, run: Run) -> str:
        """What `--study` calls a run, such as table10/rank-4/draw-1-seed-2."""
        return f"{self._name(run.study)}/{run.name}"

    def _name(self, folder: str) -> str:
        return folder.removesuffix(plan.folder_of("", self.on))


def _predicted(run: Run) -> list[Path]:
    """Files of the folder of predictions."""
    assert run.predictions is not None
    found = predictions.files_in(run.predictions)
    if not found:
        raise UserError(
            f"{run.study}/{run.name}: {run.predictions}: no predictions there; docs/rivals.md has "
            "the commands that make them."
        )
    return found


@cache
def _digest_of(module: str) -> str:
    return sources.digest(module)


@cache
def _digest(stage: str, choice: sources.Chosen) -> str:
    return sources.stage_digest(stage, choice)

"""Stage search: Optuna over the keys of `train` that `search.space` names.

Inputs: shards and manifest (prepare), the split.
Outputs: best.yaml (an overlay of the parameters that `train` takes; empty without trials),
trials.parquet and trials.csv (one row a trial, failed and pruned ones with the reason),
importance.csv (how much of the spread in Dice each key explains), provenance.json. The trials lie
in Optuna's study, a file of the run folder or a database, where an interrupted search goes on with
the trial it was at, a longer one with the next, and several workers share them.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core import files, gpu, locks, run_folder, sources, weight_files
from pipeline.core.console import duration, say
from pipeline.core.errors import UserError
from pipeline.core.owners import owning
from pipeline.core.params import search_space
from pipeline.core.params.blocks import Params, stage_params, trial_params
from pipeline.core.params.dotted import flat, nested
from pipeline.inference.records import start_folder
from pipeline.training.prepared import TrainingData
from pipeline.training.trials import Outcome, Trial, best, write_tables

if TYPE_CHECKING:
    from pipeline.training.search_study import Study

TABLE, BEST, IMPORTANCE = "trials", "best.yaml", "importance.csv"


def run(
    params: Params,
    prepared: Path,
    split: Path,
    out: Path,
    runs: Path,
    *,
    device: gpu.Device,
    workers: int = 1,
) -> None:
    """Search, or find it done; then publish to `out`.

    Args:
        params: all parameters; `base`, `search` and `train` are read.
        prepared, split: published folders of these stages.
        out: folder to publish to.
        runs: folder of the run folders.
        device: where to train; leased only if a trial is left to do, by each worker one.
        workers: processes that share the trials.

    Raises:
        UserError: inputs that are missing or don't belong together, nothing to score trials on, or
            only trials that failed.
        Stopped: a signal asked for it; the same call goes on from there.
    """
    work = _Work.open(params, prepared, split)
    with work.folder(runs) as run:
        if run.is_done():
            say(f"search: already done in {run.path}")
        else:
            trials: list[Trial] = []
            importances: Mapping[str, float] = {}
            if params.search.trials:
                study = work.study(run)
                # nobody else is at work in the folder, so who runs a trial is dead
                study.bury()
                if study.total < params.search.trials:
                    say(f"search: the space holds {study.total} settings; each is tried once")
                say(f"search: to watch the trials: {study.dashboard}")
                if workers > 1 and study.is_left():
                    from pipeline.training import search_workers

                    search_workers.work(workers, _worker, (params, prepared, split, run, device))
                    study.bury()
                work.trials(study, run, device, worker=1)
                trials, importances = study.trials(), study.importances()
            _write(run.out, trials, importances, params)
            _refuse_failures(trials, run)
            run.finish()
        run.publish(out)
    say(f"search: {_found(out)}, in {out}; next: hsam train")


def run_worker(
    params: Params, prepared: Path, split: Path, runs: Path, *, device: gpu.Device, worker: int
) -> None:
    """Run trials beside other workers until none is left; nothing is published.

    Args:
        params, prepared, split, runs, device: as `run` has them.
        worker: its number, from 1. What an earlier worker of this number was at is tried again.

    Raises:
        UserError: as `run`; or a worker of this number is at work.
    """
    work = _Work.open(params, prepared, split)
    if not params.search.trials:
        return
    with work.folder(runs, shared=True) as run:
        own = run.path / f"worker-{worker}"
        own.mkdir(exist_ok=True)
        release = locks.try_lock(own / run_folder.LOCK)
        if release is None:
            raise UserError(
                f"{run.path}: worker {worker} is at work here; give this one another number."
            )
        try:
            with owning(own):
                if not run.is_done():
                    study = work.study(run)
                    study.bury(worker)
                    work.trials(study, run, device, worker)
        finally:
            release()


class _Work:
    """The parameters and the data of a search."""

    def __init__(self, params: Params, data: TrainingData) -> None:
        self.params, self.data = params, data

    @classmethod
    def open(cls, params: Params, prepared: Path, split: Path) -> "_Work":
        """Read what the search depends on, and refuse what no trial could be scored on."""
        data = TrainingData.open(prepared, split)
        if params.search.trials:
            data.check_training(split)
            data.check_validation(split, "search.trials", "trials are scored", "0")
        return cls(params, data)

    def folder(
        self, runs: Path, *, shared: bool = False
    ) -> AbstractContextManager[run_folder.RunFolder]:
        """The run folder, named by what a trial depends on."""
        params, inputs = self.params, dict(self.data.hashes)
        if (sam := weight_files.chosen(params.train)) is not None:
            inputs["sam_checkpoint"] = weight_files.checked_sha256(sam, params.train.backbone)
        if (start := start_folder(params.train.start, runs)) is not None:
            inputs["start"] = files.sha256(start / run_folder.MODEL_FILES[1])
        return run_folder.open_run(
            runs,
            self.data.name,
            "search",
            stage_params(params, "search"),
            inputs,
            sources.chosen("search", params),
            named_by=trial_params(params),
            shared=shared,
        )

    def study(self, run: run_folder.RunFolder) -> "Study":
        """The study that all workers share."""
        # imports Optuna, which a search that is done doesn't need
        from pipeline.training.search_study import Study

        params = self.params
        train = params.train.model_dump(mode="json")
        seed, epochs = params.seed_of("search"), params.trial_epochs()
        return Study(run.path, params.search, epochs, seed, train)

    def trials(
        self, study: "Study", run: run_folder.RunFolder, device: gpu.Device, worker: int
    ) -> None:
        """Run trials until none is left."""
        if not study.is_left():
            return
        self.data.check_shards("train", "validation")
        settled = gpu.settled(device)
        # imports PyTorch, which takes longer than finding that all is done
        from pipeline.training import objective

        begin = objective.objectives(run, self.params, self.data, settled)
        while (asked := study.claim(worker)) is not None:
            outcome = objective.run_trial(study, asked, begin, settled)
            _tell(asked.number, asked.values, outcome, study)


def _worker(
    params: Params,
    prepared: Path,
    split: Path,
    run: run_folder.RunFolder,
    device: gpu.Device,
    number: int,
) -> None:
    """A process of several, started by one that holds the run folder."""
    work = _Work.open(params, prepared, split)
    work.trials(work.study(run), run, device, number)


def _found(out: Path) -> str:
    """The best trial's values, from the published best.yaml."""
    best = flat(files.read_json(out / BEST).get("train", {}))
    values = ", ".join(f"{key} {search_space.shown(value)}" for key, value in best.items())
    return f"best are {values}" if values else "no trials"


def _tell(number: int, values: Mapping[str, Any], outcome: Outcome, study: "Study") -> None:
    name = f"search: trial {number + 1}/{study.total}"
    tried = ", ".join(f"{key} {search_space.shown(value)}" for key, value in values.items())
    count, seconds = study.left()
    rest = f"; about {duration(seconds)} for the {count} left" if count else ""
    if outcome.value is None:
        say(f"{name}: failed: {outcome.reason} ({tried}){rest}")
    else:
        note = f", {outcome.reason}" if outcome.pruned else ""
        say(f"{name}: Dice {outcome.value:.3f}{note} ({tried}){rest}")


def _refuse_failures(trials: Sequence[Trial], run: run_folder.RunFolder) -> None:
    """UserError where no trial was finished, so that there is nothing to choose from."""
    if trials and best(trials) is None:
        number, reason = len(trials), trials[-1].reason.removesuffix(".")
        raise UserError(
            f"search: {number} of {number} trials failed ({run.out / TABLE}.csv), the last one "
            f"with: {reason}; change the space or the block train, raise search.trials, or remove "
            f"{run.path} to try the same again."
        )


def _write(
    out: Path, trials: Sequence[Trial], importances: Mapping[str, float], params: Params
) -> None:
    keys = list(search_space.knobs(params.search.space))
    write_tables(trials, keys, out / TABLE)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("key", "importance"), *importances.items()])
    files.write_text(out / IMPORTANCE, text.getvalue())
    winner = best(trials)
    overlay = {} if winner is None else {"train": nested(winner.values)}
    # JSON is YAML, and keeps every digit
    files.write_text(out / BEST, json.dumps(overlay) + "\n")

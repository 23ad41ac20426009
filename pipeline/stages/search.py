"""Stage search: Optuna over LoRA rank, Dice weight and the start of lambda.

Inputs: shards and manifest (prepare), the split.
Outputs: best.yaml (an overlay of the parameters that `train` takes; empty without trials),
trials.csv (one row a trial, with the reason where it failed), provenance.json. Finished trials lie
in a journal in the run folder, where an interrupted search goes on with the trial it was at, and a
longer one with the next: what a trial tries follows from the seed, its number and the trials before
it.
"""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pipeline.core import files, gpu, run_folder, sources, weight_files
from pipeline.core.console import say
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Params, Search, stage_params, trial_params
from pipeline.training.prepared import TrainingData
from pipeline.training.trials import Finished, read_journal, write_journal

KNOBS = ("lora_rank", "dice_weight", "lambda_start")
COLUMNS = ("number", "state", "value", *KNOBS, "reason")
JOURNAL, TABLE = "journal.jsonl", "trials.csv"
SEEDS = 2**32


def run(
    params: Params, prepared: Path, split: Path, out: Path, runs: Path, *, device: gpu.Device
) -> None:
    """Search, or find it done; then publish to `out`.

    Args:
        params: all parameters; `base`, `search` and `train` are read.
        prepared, split: published folders of these stages.
        out: folder to publish to.
        runs: folder of the run folders.
        device: where to train; leased only if a trial is left to do.

    Raises:
        UserError: inputs that are missing or don't belong together, nothing to score trials on, or
            only trials that failed.
    """
    data = TrainingData.open(prepared, split)
    if params.search.trials:
        data.check_training(split)
        data.check_validation(split, "search.trials", "trials are scored", "0")
    inputs = dict(data.hashes)
    if (sam := weight_files.chosen(params.train)) is not None:
        inputs["sam_checkpoint"] = weight_files.checked_sha256(sam, params.train.backbone)
    key, code = stage_params(params, "search"), sources.chosen("search", params)
    with run_folder.open_run(
        runs, data.name, "search", key, inputs, code, named_by=trial_params(params)
    ) as run:
        if run.is_done():
            say(f"search: already done in {run.path}")
        else:
            trials = []
            if params.search.trials:
                trials = _search(params, data, run, device)
            _write(run.out, trials)
            _refuse_failures(trials, run)
            run.finish()
        run.publish(out)
    say(f"search: {_found(out)}, in {out}; next: hsam train")


def _found(out: Path) -> str:
    """The best trial's values, from the published best.yaml."""
    best = files.read_json(out / "best.yaml").get("train", {})
    values = ", ".join(f"{knob} {value:.3g}" for knob, value in best.items())
    return f"best are {values}" if values else "no trials"


def _search(
    params: Params, data: TrainingData, run: run_folder.RunFolder, device: gpu.Device
) -> list[Finished]:
    """All trials; those that the journal lacks are run, and written to it one by one."""
    journal, total = run.path / JOURNAL, params.search.trials
    finished = read_journal(journal)
    if any(number not in finished for number in range(total)):
        data.check_shards("train", "validation")
        proposals = _Proposals(params.search, params.seed_of("search"))
        settled = gpu.settled(device)
        # imports PyTorch, which takes longer than finding that all is done
        from pipeline.training import objective

        begin = objective.objectives(run, params, data, settled)
        for number in range(total):
            if number not in finished:
                finished[number] = objective.run_trial(number, proposals.ask(number), begin)
                write_journal(journal, (finished[key] for key in sorted(finished)))
                _tell(finished[number], total)
            proposals.add(finished[number])
    return [finished[number] for number in range(total)]


class _Proposals:
    """What the trials try, by Optuna's TPE; it takes them in the order of their numbers."""

    def __init__(self, ranges: Search, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._seed = optuna, seed
        self._study = optuna.create_study(direction="maximize")
        self._asked: Any = None
        self._spaces: dict[str, Any] = {}
        if ranges.lora_rank is not None:
            self._spaces["lora_rank"] = optuna.distributions.CategoricalDistribution(
                ranges.lora_rank
            )
        for knob in ("dice_weight", "lambda_start"):
            if (limits := getattr(ranges, knob)) is not None:
                self._spaces[knob] = optuna.distributions.FloatDistribution(*limits)

    def ask(self, number: int) -> dict[str, Any]:
        """What trial `number` tries, given those before it: the same whenever it is asked."""
        seed = (self._seed + number) % SEEDS
        self._study.sampler = self._optuna.samplers.TPESampler(seed=seed)
        self._asked = self._study.ask(self._spaces)
        return dict(self._asked.params)

    def add(self, trial: Finished) -> None:
        """Take the outcome of a trial into account, the one asked for or one of the journal."""
        states = self._optuna.trial.TrialState
        state = states.FAIL if trial.value is None else states.COMPLETE
        if self._asked is not None:
            self._study.tell(self._asked, trial.value, state=state)
            self._asked = None
            return
        self._study.add_trial(
            self._optuna.trial.create_trial(
                state=state,
                value=trial.value,
                params=trial.values,
                distributions=self._spaces,
            )
        )


def _tell(trial: Finished, total: int) -> None:
    name = f"search: trial {trial.number + 1}/{total}"
    if trial.value is None:
        say(f"{name}: failed: {trial.reason} {trial.values}")
    else:
        say(f"{name}: Dice {trial.value:.3f} {trial.values}")


def _refuse_failures(trials: list[Finished], run: run_folder.RunFolder) -> None:
    """UserError where no trial was finished, so that there is nothing to choose from."""
    if trials and all(trial.value is None for trial in trials):
        number, reason = len(trials), trials[-1].reason.removesuffix(".")
        raise UserError(
            f"search: {number} of {number} trials failed ({run.out / TABLE}), the last one with: "
            f"{reason}; change the ranges or the block train, raise search.trials, or remove "
            f"{run.path} to try the same again."
        )


def _write(out: Path, trials: Iterable[Finished]) -> None:
    trials = list(trials)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for trial in trials:
        about = {"number": trial.number, "state": trial.state, "value": trial.value}
        writer.writerow(about | trial.values | {"reason": trial.reason})
    files.write_text(out / TABLE, text.getvalue())
    best: dict[str, Any] = {}
    scored = [(trial.value, trial) for trial in trials if trial.value is not None]
    if scored:
        _, winner = max(scored, key=lambda pair: pair[0])
        best = {"train": {knob: winner.values[knob] for knob in KNOBS if knob in winner.values}}
    # JSON is YAML, and keeps every digit
    files.write_text(out / "best.yaml", json.dumps(best) + "\n")

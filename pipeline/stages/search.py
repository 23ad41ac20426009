"""Stage search: Optuna over LoRA rank, Dice weight and the start of lambda.

Inputs: shards and manifest (prepare), the split.
Outputs: best.yaml (an overlay of the parameters that `train` takes; empty without trials),
trials.csv (one row a trial), provenance.json. Finished trials lie in a journal in the run folder,
where an interrupted search goes on with the trial it was at.
"""

import csv
import io
import json
from functools import partial
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from pipeline.core import files, run_folder, sources
from pipeline.core.console import say
from pipeline.core.params.blocks import Params, Search, Train, stage_params
from pipeline.scoring import dice
from pipeline.training.build import build_model, sam_file
from pipeline.training.devices import make_fabric
from pipeline.training.fit import fit
from pipeline.training.prepared import TrainingData
from pipeline.training.sam_files import checked_sha256
from pipeline.training.slices import SliceDataset
from pipeline.training.validation import Validation

KNOBS = ("lora_rank", "dice_weight", "lambda_start")
COLUMNS = ("number", "state", "value", *KNOBS)


def run(params: Params, prepared: Path, split: Path, out: Path, runs: Path, *, device: str) -> None:
    """Search, or find it done; then publish to `out`.

    Args:
        params: all parameters; `base`, `search` and `train` are read.
        prepared, split: published folders of these stages.
        out: folder to publish to.
        runs: folder of the run folders.
        device: "cpu" or "cuda".

    Raises:
        UserError: inputs that are missing or don't belong together.
    """
    data = TrainingData.open(prepared, split)
    inputs = dict(data.hashes)
    if (sam := sam_file(params.train)) is not None:
        inputs["sam_checkpoint"] = checked_sha256(sam, params.train.backbone)
    key, code = stage_params(params, "search"), sources.chosen("search", params)
    with run_folder.open_run(runs, data.name, "search", key, inputs, code) as run:
        if run.is_done():
            say(f"search: already done in {run.path}")
        else:
            trials = []
            if params.search.trials:
                data.check_shards("train", "validation")
                trials = _search(params, data, run.path / "journal.jsonl", device)
            _write(run.out, trials)
            run.finish()
        run.publish(out)


def _search(params: Params, data: TrainingData, journal: Path, device: str) -> list[dict]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _study(journal)
    # a trial runs on one device
    fabric = make_fabric(params.train.model_copy(update={"devices": 1}), device)
    fabric.launch()
    objective = partial(
        _objective,
        params=params,
        data=data,
        slices=data.slices("train", params.train.cache_mib),
        validation=Validation.of(data, params.train),
        fabric=fabric,
    )
    complete = optuna.trial.TrialState.COMPLETE
    total = params.search.trials
    while (done := len(study.get_trials(deepcopy=False, states=(complete,)))) < total:
        # seeded by the trial, not by the process: an interrupted search proposes the same again
        study.sampler = optuna.samplers.TPESampler(seed=params.base.seed + done)
        study.optimize(objective, n_trials=1)
        trial = study.get_trials(deepcopy=False, states=(complete,))[-1]
        say(f"search: trial {done + 1}/{total}: Dice {trial.value:.3f} {trial.params}")
    return [
        {"number": number, "state": "complete", "value": trial.value, **trial.params}
        for number, trial in enumerate(study.get_trials(states=(complete,)))
    ]


def _objective(
    trial: Any,
    *,
    params: Params,
    data: TrainingData,
    slices: SliceDataset,
    validation: Validation,
    fabric: Fabric,
) -> float:
    settings = _suggest(trial, params.search, params.train)
    model = build_model(settings, len(data.class_names), params.base.seed)
    fit(fabric, model, slices, settings, seed=params.base.seed, title=f"trial {trial.number}")
    return dice.mean(validation(model.eval(), fabric).values())


def _suggest(trial: Any, ranges: Search, settings: Train) -> Train:
    """The `train` block of a trial; a knob without a range keeps its value."""
    changes: dict[str, Any] = {"epochs": ranges.epochs}
    if ranges.lora_rank is not None:
        changes["lora_rank"] = trial.suggest_categorical("lora_rank", ranges.lora_rank)
    if ranges.dice_weight is not None:
        changes["dice_weight"] = trial.suggest_float("dice_weight", *ranges.dice_weight)
    if ranges.lambda_start is not None:
        changes["lambda_start"] = trial.suggest_float("lambda_start", *ranges.lambda_start)
    return settings.model_copy(update=changes)


def _study(journal: Path) -> Any:
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    _mend(journal)
    # the run folder is locked, so a lock that lies here belongs to a process that was killed
    for lock in journal.parent.glob(f"{journal.name}.*"):
        lock.unlink()
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name="search",
        direction="maximize",
        load_if_exists=True,
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _mend(journal: Path) -> None:
    """Cut a line that a killed process left half written; Optuna can't read past it."""
    if not journal.exists():
        return
    data = journal.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        with files.atomic_path(journal) as path:
            path.write_bytes(whole)


def _write(out: Path, trials: list[dict]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(trials)
    files.write_text(out / "trials.csv", text.getvalue())
    best: dict[str, Any] = {}
    if trials:
        winner = max(trials, key=lambda trial: trial["value"])
        best = {"train": {knob: winner[knob] for knob in KNOBS if knob in winner}}
    # JSON is YAML, and keeps every digit
    files.write_text(out / "best.yaml", json.dumps(best) + "\n")

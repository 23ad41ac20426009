"""A trial of the search: a model trained with its values and scored on the validation cases."""

import gc
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning_fabric import Fabric

from hsam.model import SegmentationModel
from pipeline.core.cost import device_name
from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Params, Train
from pipeline.core.params.dotted import nested
from pipeline.core.params.load import overlay, validate
from pipeline.core.run_folder import RunFolder
from pipeline.inference.records import start_folder
from pipeline.training.devices import make_fabric
from pipeline.training.embeddings import embedded
from pipeline.training.fit import fit
from pipeline.training.history import mean_dice
from pipeline.training.prepared import TrainingData
from pipeline.training.search_study import Asked, Study
from pipeline.training.start import started
from pipeline.training.trials import Outcome, Pruned
from pipeline.training.validation import Scores, Validation
from pipeline.training.validation_embeddings import ValidationEmbeddings

# trains and scores a model, telling of every validation's epoch and Dice; gives the last Dice
Objective = Callable[[Callable[[int, float], None]], float]
# a trial's number and the values it tries -> its objective
Begin = Callable[[int, Mapping[str, Any]], Objective]


def objectives(run: RunFolder, params: Params, data: TrainingData, device: str) -> Begin:
    """What a trial does: train a model with its values, score it on the validation cases."""
    slices = data.slices("train", params.train.cache_mib)
    kept = ValidationEmbeddings(params.train.cache_mib)
    seed = params.seed_of("train")
    start = start_folder(params.train.start, run.path.parent)

    def begin(number: int, values: Mapping[str, Any]) -> Objective:
        settings = trial_settings(params, values)
        # one of its own: a float16 trial's scaler must not begin where another's ended
        fabric = make_fabric(settings, device)
        fabric.launch()
        model = started(settings, len(data.class_names), seed, start).model
        embeddings = embedded(run, settings, data, seed, device)
        same = None if embeddings is None else kept.behind(embeddings.folder)
        validation = Validation.of(data, same)

        def objective(report: Callable[[int, float], None]) -> float:
            fitted = fit(
                fabric,
                model,
                slices,
                settings,
                seed=seed,
                validate=_Reporting(validation, settings, report),
                title=f"trial {number}",
                embeddings=embeddings,
            )
            dice = fitted.history.last_dice()
            assert dice is not None  # validated at the end of its last epoch
            return dice

        return objective

    return begin


def trial_settings(params: Params, values: Mapping[str, Any]) -> Train:
    """The `train` block of a trial: on one device, as long as `trial_epochs` says.

    Raises:
        UserError: values that are each allowed, but not together.
    """
    epochs = params.trial_epochs()
    own = {"epochs": epochs, "devices": 1, "keep": "last", "early_stopping": None}
    own["validate_every"] = params.search.validate_every or epochs
    changes = {"train": overlay(own, nested(values)), "search": {"trials": 0}}
    return validate(overlay(params.model_dump(mode="json"), changes), "search.space").train


class _Reporting:
    """The validation of a trial, which tells of each one's epoch and mean Dice."""

    def __init__(
        self, validation: Validation, settings: Train, report: Callable[[int, float], None]
    ) -> None:
        self._validation, self._settings, self._report = validation, settings, report
        self._done = 0

    def __call__(self, model: SegmentationModel, fabric: Fabric, batch_size: int) -> Scores:
        scores = self._validation(model, fabric, batch_size)
        self._done += 1
        epoch = min(self._done * self._settings.validate_every, self._settings.epochs)
        self._report(epoch, mean_dice(scores))
        return scores


def run_trial(study: Study, asked: Asked, begin: Begin, device: str) -> Outcome:
    """Run a trial and record how it ended; what stops its training, such as a loss of NaN, makes
    it a failed one.

    Raises:
        UserError: the parameters as they stand can't be trained with either.
    """
    started = time.monotonic()
    try:
        outcome = _tried(asked, begin)
    except BaseException:
        study.put_back(asked)
        raise
    gc.collect()  # model and optimizer refer to each other
    torch.cuda.empty_cache()
    study.finish(asked, outcome, time.monotonic() - started, device_name(device))
    return outcome


def _tried(asked: Asked, begin: Begin) -> Outcome:
    try:
        objective = begin(asked.number, asked.values)
    except UserError as error:
        begin(asked.number, {})  # raises where it isn't the trial's values that are wrong
        return Outcome(None, " ".join(" ".join(error.problems).split()))
    try:
        return Outcome(objective(asked.report))
    except Pruned as stop:
        return Outcome(stop.dice, str(stop), pruned=True)
    except UserError as error:
        reason = " ".join(error.problems)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = f"out of memory ({str(error)[:200]})"
    return Outcome(None, " ".join(reason.split()))


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python, PyTorch's allocator of a GPU or that of the CPU found no memory."""
    text = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in text
        or "out of memory" in text
    )

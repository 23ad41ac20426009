"""A trial of the search: a model trained with its values and scored on the validation cases."""

import gc
from collections.abc import Callable
from typing import Any

import torch

from pipeline.core.errors import UserError
from pipeline.core.params.blocks import Params
from pipeline.core.run_folder import RunFolder
from pipeline.training.build import build_model
from pipeline.training.devices import make_fabric
from pipeline.training.embeddings import embedded
from pipeline.training.fit import fit
from pipeline.training.prepared import TrainingData
from pipeline.training.trials import Finished
from pipeline.training.validation import Validation

# a trial's number and the values it tries -> what trains and scores it and gives its Dice
Begin = Callable[[int, dict[str, Any]], Callable[[], float]]


def objectives(run: RunFolder, params: Params, data: TrainingData, device: str) -> Begin:
    """What a trial does: train a model with its values, score it on the validation cases."""
    slices = data.slices("train", params.train.cache_mib)
    validation = Validation.of(data)
    seed = params.seed_of("train")
    embeddings = embedded(run, params.train, data, seed, device)

    def begin(number: int, values: dict[str, Any]) -> Callable[[], float]:
        # a trial runs on one device and is scored at its end
        epochs = params.search.epochs
        changes = {"epochs": epochs, "validate_every": epochs, "devices": 1, **values}
        settings = params.train.model_copy(update=changes)
        # one of its own: a float16 trial's scaler must not begin where another's ended
        fabric = make_fabric(settings, device)
        fabric.launch()
        model = build_model(settings, len(data.class_names), seed)

        def objective() -> float:
            title = f"trial {number}"
            fitted = fit(
                fabric,
                model,
                slices,
                settings,
                seed=seed,
                validate=validation,
                title=title,
                embeddings=embeddings,
            )
            dice = fitted.history.last_dice()
            assert dice is not None  # validated at the end of its last epoch
            return dice

        return objective

    return begin


def run_trial(number: int, values: dict[str, Any], begin: Begin) -> Finished:
    """Run a trial; what stops its training, such as a loss of NaN, makes it a failed one."""
    objective = begin(number, values)
    try:
        return Finished(number, values, objective())
    except UserError as error:
        reason = " ".join(error.problems)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = f"out of memory ({str(error)[:200]})"
    del objective
    gc.collect()  # model and optimizer refer to each other
    torch.cuda.empty_cache()
    return Finished(number, values, None, " ".join(reason.split()))


def _is_out_of_memory(error: Exception) -> bool:
    """Whether Python, PyTorch's allocator of a GPU or that of the CPU found no memory."""
    text = str(error)
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError)
        or "can't allocate memory" in text
        or "out of memory" in text
    )

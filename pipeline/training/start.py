"""Starting a training from an earlier run: `train.start`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from hsam.model import SegmentationModel
from hsam.weights import storage
from pipeline.core.errors import UserError, few
from pipeline.core.params.blocks import Train
from pipeline.core.run_folder import MODEL_FILES, read_provenance
from pipeline.inference.records import read_record
from pipeline.training.build import build_model

SAME = ("model", "backbone")  # of both runs


@dataclass(frozen=True)
class Started:
    """A new model, and what it has of an earlier one.

    Attributes:
        model: in training mode.
        facts: rows of the table that is printed before the first step.
    """

    model: SegmentationModel
    facts: Mapping[str, str]


def started(
    settings: Train, organs: int, seed: int, start: Path | None, manifest: str | None = None
) -> Started:
    """Build the model, its trained parts as an earlier run left them where they have its shapes.

    What is frozen, such as SAM's encoder behind LoRA, stays as its own file has it.

    Args:
        settings: the `train` block.
        organs: number of classes, without the background.
        seed: of the training.
        start: folder of the earlier run's model; None: there is none.
        manifest: SHA-256 of the prepared data's manifest, to warn where both runs learn from the
            same cases; None: not to be compared.

    Raises:
        UserError: another model or encoder, no part that fits, or as `build_model`.
    """
    model = build_model(settings, organs, seed)
    if start is None:
        return Started(model, {})
    config = read_record(start)["config"]
    wanted = {"model": settings.model, "backbone": model.config.get("backbone")}
    if other := [key for key in SAME if config.get(key) != wanted[key]]:
        said = " and ".join(f"{key} {config.get(key)}" for key in other)
        here = " and ".join(str(wanted[key]) for key in other)
        raise UserError(f"train.start: {start} was trained with {said}, this is {here}.")
    try:
        tensors = storage.read_tensors(start)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(
            f"train.start: {start / MODEL_FILES[1]}: can't be read ({error})."
        ) from None
    fitting, left = [], []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            found = tensors.get(name)
            if found is None or found.shape != parameter.shape:
                left.append(name)
            else:
                parameter.copy_(found)
                fitting.append(name)
    if not fitting:
        raise UserError(f"train.start: {start} has no part of the shape that this model trains.")
    facts = {"start": f"{start}: {len(fitting)} of {len(fitting) + len(left)} trained tensors"}
    if left:
        facts["anew"] = few(left, 3)
    inputs = read_provenance(start).get("inputs", {})
    if manifest is not None and inputs.get("manifest") == manifest:
        facts["warning of start"] = "learned from these cases: test cases must not be among them"
    return Started(model, facts)

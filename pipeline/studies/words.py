"""What readers of a study's tables call facts and parameters of its runs, and how values read."""

from collections.abc import Mapping
from typing import Any

from hsam.registry import MODELS
from pipeline.inference.titles import encoder_title, encoder_words, model_title
from pipeline.scoring.conventions import CONVENTIONS
from pipeline.scoring.sheet import NONE

# fields of `Facts` that tables show
FACTS = {
    "model": "model",
    "backbone": "encoder",
    "side": "image side, pixels",
    "lora_rank": "LoRA rank",
    "tuned": "tuned",
    "batch": "batch size",
    "stage": "scored stage",
    "convention": "convention",
    "train_slices": "labelled slices",
    "train_subjects": "cases with labels",
    "test_cases": "test cases",
    "split": "split",
    "device": "device",
}
HASH = 12  # digits of a split's hash that are shown
ENCODER = "encoder"
# together they say which encoder a model has, and what of it is trained
OF_ENCODER = ("train.backbone", "train.sam_checkpoint", "train.train_encoder", "train.lora_rank")
# keys of parameters that have a name in the field
PARAMETERS = {
    "train.model": FACTS["model"],
    "train.lora_rank": FACTS["lora_rank"],
    "train.image_size": FACTS["side"],
    "train.batch_size": FACTS["batch"],
    "train.epochs": "epochs",
    "train.learning_rate": "learning rate",
    "train.mask_attention": "mask attention",
    "train.pixel_decoder": "pixel decoder",
    "train.cm_attention": "CMAttn",
    "train.embedding_noise": "noise on stage 2's embedding",
    "split.slices": "share of the slices",
    "split.subjects": "labelled cases",
    "search.trials": "trials of a search",
}
STAGES = {
    "mean": "mean of both stages, of a model that has two",
    "coarse": "coarse",
    "fine": "fine",
}


def fact(name: str, value: Any) -> str:
    """A field of `Facts` as a cell of a table."""
    if value is None:
        return NONE
    if name == "model":
        return model_title(value)
    if name == "backbone":
        return encoder_title(value)
    return str(value)[:HASH] if name == "split" else _plain(value)


def explained(name: str, value: Any) -> str:
    """The same at length, where it stands alone."""
    if name == "stage":
        return STAGES.get(value, value)
    if name == "convention" and value in CONVENTIONS:
        return f"{value}: {CONVENTIONS[value].words}"
    if name == "lora_rank" and value == 0:
        return "none"
    return fact(name, value)


def setting(params: Mapping[str, Any], key: str) -> str:
    """What parameters hold at a key, or at ENCODER; NONE where the model has no use for it.

    Args:
        params: all of a run, by block.
        key: dotted, or ENCODER.
    """
    train = params["train"]
    takes = MODELS[train["model"]].takes
    if key == ENCODER:
        if "backbone" not in takes:
            return NONE
        return encoder_words(
            train["backbone"],
            pretrained=train["sam_checkpoint"] is not None,
            trained=train["train_encoder"],
            lora_rank=train["lora_rank"] if "lora_rank" in takes else None,
        )
    value: Any = params
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return fact("model", value) if key == "train.model" else _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "✓" if value else "✗"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)

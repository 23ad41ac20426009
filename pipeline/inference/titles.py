"""What people call a model and its encoder, on pages, cards and in tables."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from hsam.backbones import BACKBONES, HUGGING_FACE
from hsam.registry import MODELS
from hsam.weights.record import pretraining


def model_title(name: str) -> str:
    """What people call a model; its name where the registry doesn't know it."""
    return MODELS[name].title if name in MODELS else name


def encoder_title(backbone: str) -> str:
    """What people call an encoder: of one in Hugging Face form the last part of its name."""
    if backbone.startswith(HUGGING_FACE):
        return f"the encoder {PurePath(backbone.removeprefix(HUGGING_FACE)).name}"
    known = BACKBONES.get(backbone)
    return backbone if known is None or known.title is None else known.title


def encoder_words(backbone: str, *, pretrained: bool, trained: bool, lora_rank: int | None) -> str:
    """An encoder, what its weights were at first, and what of it is trained.

    Args:
        backbone: its name.
        pretrained: whether it starts from weights of a pretraining.
        trained: whether it is trained whole.
        lora_rank: of the model; 0: none; None: of a model that has no LoRA.
    """
    parts = [encoder_title(backbone)]
    if not pretrained:
        parts.append("from random weights")
    if trained:
        parts.append("trained whole")
    elif lora_rank:
        parts.append(f"LoRA rank {lora_rank}")
    elif lora_rank == 0:
        parts.append("frozen")
    return ", ".join(parts)


def in_words(record: Mapping[str, Any]) -> str:
    """Model, encoder and image side: "H-SAM behind LiteMedSAM's encoder, frozen, 128 px".

    Args:
        record: the content of model.json.
    """
    config = record["config"]
    words = model_title(config["model"])
    # not every model has an encoder of the table
    if "backbone" in config:
        encoder = encoder_words(
            config["backbone"],
            pretrained=pretraining(record) is not None,
            trained=config.get("train_encoder", False),
            lora_rank=config.get("lora_rank"),
        )
        words += f" behind {encoder}"
    return f"{words}, {config['image_size']} px"

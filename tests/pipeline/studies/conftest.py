"""A folder of studies and presets, as `workflow/` is one."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.studies import plan

PRESET = {
    "dataset": {"name": "phantom", "root": "data/raw/phantom"},
    "train": {"backbone": "vit_tiny", "sam_checkpoint": None, "train_encoder": True},
    "search": {"trials": 0},
}
RANKS = {
    "title": "Rank",
    "presets": ["small"],
    "arms": {"rank-1": {"train": {"lora_rank": 1}}, "rank-4": {"train": {"lora_rank": 4}}},
    "reference": "rank-4",
    "seeds": [1, 2],
    "draws": [7],
}

# the same work as an arm of RANKS
AGAIN = RANKS | {"arms": {"four": RANKS["arms"]["rank-4"]}, "reference": None}


def write(path: Path, content: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        YAML(typ="safe").dump(content, file)
    return path


@pytest.fixture
def workflow(tmp_path, monkeypatch) -> Path:
    """The working directory, with a preset `small` and a study `ranks`."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "workflow" / "presets" / "small.yaml", PRESET)
    write(tmp_path / "workflow" / "presets" / "phantoms.yaml", {"train": {"epochs": 3}})
    write(tmp_path / "workflow" / "studies" / "ranks.yaml", RANKS)
    plan.load.cache_clear()
    return tmp_path / "workflow"

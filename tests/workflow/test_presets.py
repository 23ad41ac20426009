"""A preset gives the same parameters on every road: hsam, Snakemake, DVC's Hydra step.

`preset_values.tsv` holds them: a row a key, a column a preset.
"""

import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from dvc.utils.hydra import compose_and_dump
from snakemake.api import SnakemakeApi
from snakemake.cli import parse_config
from snakemake.exceptions import WorkflowError
from snakemake.settings.enums import Quietness
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

from pipeline.core.params.blocks import Params
from pipeline.core.params.load import layers, load, overlay, read_yaml, validate
from pipeline.core.params.render import render

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ROOT / "workflow" / "presets"
RAW = (
    "la/ABC/mri_norm2.h5",
    "promise12/Case00.mhd",
    "promise12/Case00_segmentation.mhd",
    "synapse/Training/img/img0001.nii.gz",
    "synapse/Training/label/label0001.nii.gz",
    "Task04_Hippocampus/imagesTr/hippocampus_001_0000.nii.gz",
    "Task04_Hippocampus/labelsTr/hippocampus_001.nii.gz",
)
DESCRIPTION = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "Anterior": 1, "Posterior": 2},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}
# to lay over presets; no presets themselves
BASES = {"paper", "litemedsam", "litemedsam-cpu", "phantoms"}
LATER = "train: {epochs: 7, lora_rank: 9}\n"


def golden() -> dict[str, dict]:
    """Preset to its values by key path."""
    rows = (Path(__file__).parent / "preset_values.tsv").read_text().splitlines()
    _, *names = rows[0].split("\t")
    table = {name: {} for name in names}
    for row in rows[1:]:
        key, *values = row.split("\t")
        for name, value in zip(names, values, strict=True):
            table[name][key] = json.loads(value)
    return table


GOLDEN = golden()
NAMES = sorted(GOLDEN)


def flat(values: dict, above: str = "") -> dict:
    """The values by key path."""
    found = {}
    for key, value in values.items():
        path = f"{above}{key}"
        found |= flat(value, f"{path}.") if isinstance(value, dict) else {path: value}
    return found


def values(params: Params) -> dict:
    return flat(params.model_dump(mode="json"))


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with params.yaml, the presets, a later overlay and names of raw files."""
    shutil.copytree(PRESETS, tmp_path / "workflow" / "presets")
    (tmp_path / "params.yaml").write_text(render(load([])))
    (tmp_path / "workflow" / "presets" / "later.yaml").write_text(f"# @package _global_\n{LATER}")
    for name in RAW:
        path = tmp_path / "data" / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    description = tmp_path / "data/raw/Task04_Hippocampus/dataset.json"
    description.write_text(json.dumps(DESCRIPTION))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def by_hsam(*names: str) -> Params:
    return load([PRESETS / f"{name}.yaml" for name in names])


def by_snakemake(folder: Path, *names: str, config: Sequence[str] = ()) -> Params:
    """What the jobs are given; Snakemake reads the Snakefile and runs nothing."""
    files = [folder / f"workflow/presets/{name}.yaml" for name in names]
    settings = ConfigSettings(parse_config(config), files)
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=settings,
            snakefile=ROOT / "Snakefile",
            workdir=folder,
        )
        workflow.lint()
        return workflow._workflow.globals["PARAMS"]


def by_hydra(folder: Path, *overrides: str) -> Params:
    """What `dvc exp run -S ...` writes to params.yaml."""
    out = folder / "composed.yaml"
    plugins = folder / ".dvc" / "hydra_plugins"
    compose_and_dump(out, str(folder), None, "params", str(plugins), list(overrides))
    return validate(read_yaml(out), "composed")


def test_every_preset_stands_in_the_table():
    assert {path.stem for path in PRESETS.glob("*.yaml")} == {*NAMES, *BASES}
    assert all(by_hsam("paper", name) for name in BASES)


def test_presets_set_the_same_keys_whatever_stands_below_them():
    stacks = (layers(PRESETS / f"{name}.yaml") for name in NAMES)
    keys = {frozenset(flat(overlay({}, *(layer.values for layer in stack)))) for stack in stacks}
    assert len(keys) == 1


@pytest.mark.parametrize("name", NAMES)
def test_hsam_gives_a_presets_values(name):
    assert values(by_hsam(name)) == GOLDEN[name]


@pytest.mark.parametrize("name", NAMES)
def test_snakemake_gives_a_presets_values(folder, name):
    assert values(by_snakemake(folder, name)) == GOLDEN[name]


@pytest.mark.parametrize("name", NAMES)
def test_hydra_gives_a_presets_values(folder, name):
    assert values(by_hydra(folder, f"+workflow/presets={name}")) == GOLDEN[name]


@pytest.mark.parametrize("pair", list(itertools.permutations(NAMES, 2)), ids="-then-".join)
def test_a_preset_can_follow_another(pair):
    assert values(by_hsam(*pair)) == GOLDEN[pair[1]]


def test_a_later_file_wins_over_a_presets_base_on_every_road(folder):
    name = "synapse-10pct-published"
    expected = GOLDEN[name] | {"train.epochs": 7, "train.lora_rank": 9}
    (folder / "later.yaml").write_text(LATER)
    assert values(load([PRESETS / f"{name}.yaml", folder / "later.yaml"])) == expected
    assert values(by_snakemake(folder, name, "later")) == expected
    presets = f"+workflow/presets=[{name},later]"
    assert values(by_hydra(folder, presets)) == expected
    assert values(by_hydra(folder, presets, "train.epochs=8")) == expected | {"train.epochs": 8}


def test_values_on_snakemakes_command_line_have_the_types_of_yaml(folder):
    inner = "train={epochs: 3, keep: last, tf32: false, augment: {crop_side: [0.5, 1]}}"
    found = by_snakemake(folder, "later", config=[inner, "search={trials: 0}"]).train
    assert (found.epochs, found.tf32, found.lora_rank) == (3, False, 9)
    assert found.augment.crop_side == [0.5, 1]


def test_json_on_snakemakes_command_line_is_yaml_too(folder):
    config = ['train={"epochs": 9, "keep": "last"}', 'split={"test": ["img0004"], "slices": null}']
    found = by_snakemake(folder, "later", config=config)
    assert (found.train.epochs, found.split.test, found.split.slices) == (9, ["img0004"], None)


@pytest.mark.parametrize(
    ("dataset", "why"),
    [
        ({"name": "nnunet", "root": "nowhere"}, "nnunet has none"),
        ({"name": "phantom", "cases": ["img0001"]}, "dataset.cases names none of them"),
    ],
)
def test_a_split_that_cannot_be_is_known_from_the_parameters(folder, dataset, why, capsys):
    config = [f"dataset={json.dumps(dataset)}", "split={test: null}"]
    with pytest.raises(WorkflowError, match=f"split.test: null takes .*{why}"):
        by_snakemake(folder, "later", config=config)


def test_one_preset_follows_another_under_both_engines(folder):
    assert values(by_snakemake(folder, "la-4", "synapse-5vol")) == GOLDEN["synapse-5vol"]
    presets = "+workflow/presets=[la-4,synapse-5vol]"
    assert values(by_hydra(folder, presets)) == GOLDEN["synapse-5vol"]


def test_snakemake_takes_a_partial_params_yaml(folder):
    (folder / "params.yaml").write_text("train: {epochs: 7}\n")
    assert by_snakemake(folder) == validate({"train": {"epochs": 7}}, "")
    assert not (folder / "runs").exists()
    assert by_snakemake(folder, "later") == load([folder / "workflow/presets/later.yaml"])


def test_the_readmes_preset_of_ones_own_is_valid_on_both_roads(folder):
    text = (ROOT / "README.md").read_text()
    mine = folder / "workflow" / "presets" / "mine.yaml"
    mine.write_text(text.partition("```yaml\n")[2].partition("```")[0])
    found = load([mine])
    assert (found.dataset.name, found.split.subjects, found.train.backbone) == (
        "nnunet",
        5,
        "vit_b",
    )
    assert by_hydra(folder, "+workflow/presets=mine") == found

from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.core.params import blocks
from pipeline.core.params.blocks import stage_params
from pipeline.core.params.load import load, overlay, read_yaml, validate
from pipeline.core.params.render import render, restore_comments, schema_text

ROOT = Path(__file__).resolve().parents[4]
PRESETS = sorted((ROOT / "workflow" / "presets").glob("*.yaml"))


@pytest.fixture
def values() -> dict:
    return read_yaml(ROOT / "params.yaml")


def key_paths(values: dict, above: str = "") -> set[str]:
    paths = set()
    for key, value in values.items():
        path = f"{above}{key}"
        paths |= key_paths(value, f"{path}.") if isinstance(value, dict) else {path}
    return paths


def problems(values: dict) -> list[str]:
    with pytest.raises(UserError) as caught:
        validate(values, "params.yaml")
    return caught.value.problems


def test_params_yaml_is_valid_and_carries_the_models_comments():
    assert render(load([ROOT / "params.yaml"])) == (ROOT / "params.yaml").read_text()


def test_schema_file_is_up_to_date():
    text = (ROOT / "workflow" / "schemas" / "params.schema.json").read_text()
    assert text == schema_text(), "run: make schema"


def test_schema_sets_no_defaults():
    assert '"default"' not in schema_text()


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_presets_are_valid_over_params_yaml(preset):
    load([ROOT / "params.yaml", preset])


def test_all_presets_set_the_same_keys_so_that_one_can_follow_another():
    keys = {preset.stem: key_paths(read_yaml(preset)) for preset in PRESETS}
    assert len({frozenset(paths) for paths in keys.values()}) == 1, keys


def test_preset_phantom_is_what_params_yaml_says(values):
    phantom = read_yaml(ROOT / "workflow" / "presets" / "phantom.yaml")
    assert overlay(values, phantom) == values


def test_synapse_preset_has_the_papers_numbers():
    train = load([ROOT / "params.yaml", ROOT / "workflow/presets/synapse-10pct.yaml"]).train
    assert (train.learning_rate, train.batch_size, train.weight_decay) == (2.5e-3, 32, 0.1)
    assert (train.betas, train.warmup_iterations, train.epochs) == ([0.9, 0.999], 250, 300)
    assert (train.dice_weight, train.lambda_start, train.lora_rank) == (0.9, 0.4, 4)
    augment = train.augment
    assert (augment.rotate, augment.crop, augment.elastic) == (0.45, 0.75, 0.85)
    assert (augment.rotation_degrees, augment.crop_side) == (20, [0.2, 0.8])
    assert (augment.noise, augment.gamma) == (0, 1)


def test_every_problem_is_listed_at_once_with_its_key_path(values):
    values["train"]["epochs"] = "3"
    values["train"]["epoch"] = 3
    values["split"]["slices"] = 1.5
    values["prepare"]["intensity"] = {"kind": "window", "low": 5, "high": 1}
    values["train"]["sam_checkpoint"] = "sam.pth"
    del values["report"]["slices"]
    found = problems(values)
    for path in (
        "train.epochs: '3'",
        "train.epoch: unknown key",
        "split.slices: 1.5",
        "prepare.intensity: low (5)",
        "train.sam_checkpoint: 'sam.pth'",
        "report.slices: missing",
    ):
        assert sum(line.startswith(f"params.yaml: {path}") for line in found) == 1, path
    assert len(found) == 6


@pytest.mark.parametrize(
    ("key", "value", "hint"), [("epochs", "3", "3"), ("lr_power", "1e-3", "0.001")]
)
def test_a_quoted_number_is_shown_without_quotes(values, key, value, hint):
    values["train"][key] = value
    (line,) = problems(values)
    assert line.endswith(f"(write {hint}, without quotes).")


def test_a_refused_union_gives_one_sentence(values):
    values["split"]["test"] = "img0001"
    (line,) = problems(values)
    assert line.startswith("params.yaml: split.test: 'img0001' is not allowed:")


@pytest.mark.parametrize(
    ("block", "key", "value", "expected"),
    [
        ("split", "validation", 0.0, "search.trials"),
        ("split", "list", "roles.csv", "split.list"),
        ("train", "train_encoder", False, "train.train_encoder"),
        ("search", "dice_weight", [0.9, 0.1], "search.dice_weight"),
    ],
)
def test_contradictions_are_refused(values, block, key, value, expected):
    values["search"]["trials"] = 2
    values["split"]["slices"] = 0.5
    values[block][key] = value
    assert any(f": {expected}: " in line for line in problems(values))


@pytest.mark.parametrize("crop", [[0.8, 0.2], [0.0, 0.5], [0.5, 1.2]])
def test_a_crop_lies_within_the_slice(values, crop):
    values["train"]["augment"]["crop_side"] = crop
    (line,) = problems(values)
    assert line.startswith(f"params.yaml: train.augment.crop_side: {crop} is not a range")


@pytest.mark.parametrize("case", ["../x", "a/b", "", ".hidden", "a\nb"])
def test_case_ids_cannot_leave_their_folder(values, case):
    values["dataset"]["cases"] = [case]
    assert any("dataset.cases.0" in line for line in problems(values))


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("train: [")
    with pytest.raises(UserError, match="not valid YAML"):
        load([path])
    with pytest.raises(UserError, match="no such parameter file"):
        load([tmp_path / "none.yaml"])


def test_comments_come_back_without_a_change_of_values(tmp_path, values):
    path = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    path.write_text("\n".join(line.split("#")[0].rstrip() for line in text.splitlines()))
    restore_comments(path)
    assert path.read_text() == text


def test_stages_read_only_their_blocks(values):
    before = validate(values, "")
    values["evaluate"]["batch_size"] += 1
    after = validate(values, "")
    changed = {s for s in blocks.READS if stage_params(before, s) != stage_params(after, s)}
    assert changed == {"evaluate"}

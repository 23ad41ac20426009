from pathlib import Path

import pytest

from pipeline.core.errors import UserError
from pipeline.core.params import blocks
from pipeline.core.params.blocks import stage_params
from pipeline.core.params.load import DEFAULTS, Layer, load, read_yaml, resolve, validate
from pipeline.core.params.render import render, restore_comments, schema_text

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def values() -> dict:
    return read_yaml(DEFAULTS)


def problems(values: dict) -> list[str]:
    with pytest.raises(UserError) as caught:
        validate(values, "params.yaml")
    return caught.value.problems


def test_params_yaml_says_what_the_packaged_defaults_say():
    assert (ROOT / "params.yaml").read_text() == render(load([])), "run: make params"


def test_schema_file_is_up_to_date():
    text = (ROOT / "workflow" / "schemas" / "params.schema.json").read_text()
    assert text == schema_text(), "run: make schema"


def test_schema_sets_no_defaults():
    assert '"default"' not in schema_text()


def test_the_recipe_has_the_papers_numbers():
    train = load([ROOT / "workflow" / "presets" / "paper.yaml"]).train
    assert (train.learning_rate, train.batch_size, train.weight_decay) == (2.5e-3, 32, 0.1)
    assert (train.betas, train.warmup_iterations, train.epochs) == ([0.9, 0.999], 250, 300)
    assert (train.dice_weight, train.lambda_start, train.lora_rank) == (0.9, 0.4, 4)
    augment = train.augment
    assert (augment.rotate, augment.crop, augment.elastic) == (0.45, 0.75, 0.85)
    assert (augment.rotation_degrees, augment.crop_side) == (20, [0.2, 0.8])
    assert (augment.noise, augment.gamma) == (0, 1)


def write(folder: Path, **files: str) -> list[Path]:
    """Parameter files `<name>.yaml`."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return [folder / f"{name}.yaml" for name in files]


def test_a_partial_file_is_laid_over_the_packaged_defaults(tmp_path):
    (mine,) = write(tmp_path, mine="train: {epochs: 7, augment: {rotate: 0.0}}")
    found, defaults = load([mine]), load([])
    assert (found.train.epochs, found.train.augment.rotate) == (7, 0)
    assert found.train.augment.crop == defaults.train.augment.crop
    assert found.dataset == defaults.dataset


def test_a_file_stands_on_others_and_a_later_file_wins_over_them(tmp_path):
    later, *_, mine = write(
        tmp_path,
        later="train: {lora_rank: 9}",
        base="train: {lora_rank: 2, batch_size: 2, epochs: 2}",
        middle="defaults: [base, _self_]\ntrain: {batch_size: 3, epochs: 3}",
        mine="defaults: [middle, _self_]\ntrain: {epochs: 4}",
    )
    train = load([mine, later]).train
    assert (train.lora_rank, train.batch_size, train.epochs) == (9, 3, 4)
    # the other way round the base is laid over what stood there
    assert load([later, mine]).train.lora_rank == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defaults: [paper, _self_]", "mine.yaml: defaults: 'paper' asks for .*paper.yaml, which"),
        ("defaults: [mine, _self_]", "mine.yaml: defaults: the file stands on itself"),
        ("defaults: [other]", r"expected names of files .* found \['other'\]"),
        ("defaults: [_self_, other]", "expected names of files"),
        ("defaults: paper", "expected names of files .* found 'paper'"),
        ("defaults: [{db: mysql}, _self_]", "expected names of files"),
    ],
)
def test_bases_that_cannot_be_found_or_read_are_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load(write(tmp_path, mine=text))


def test_a_problem_names_the_file_that_the_value_stands_in(tmp_path):
    files = write(
        tmp_path,
        one="train: {epochs: 0, lora_rank: -1, keep: best}",
        two="train: {epochs: 3, batch: 1, validate_every: 0}\nprepare: {intensity: {kind: window}}",
    )
    with pytest.raises(UserError) as caught:
        load(files)
    one, two = files
    expected = [
        f"{two}: prepare.intensity.low: missing",
        f"{two}: prepare.intensity.high: missing",
        f"{one}: train.lora_rank: -1",
        f"{two}: train.batch: unknown key",
        f"{one} and {two}: train.keep: best needs validations",
    ]
    assert len(caught.value.problems) == len(expected)
    for problem, start in zip(caught.value.problems, expected, strict=True):
        assert problem.startswith(start)


def test_values_at_odds_with_a_default_are_the_files_problem(tmp_path):
    (mine,) = write(tmp_path, mine="split: {validation: 0.0}")
    with pytest.raises(UserError) as caught:
        load([mine])
    assert [line.split(": ")[:2] for line in caught.value.problems] == [
        [str(mine), "search.trials"],
        [str(mine), "train.validate_every"],
    ]


def test_a_value_from_the_command_line_is_named_so(values):
    with pytest.raises(UserError, match="^--config: train.epochs: '3' is not allowed"):
        resolve([Layer("params.yaml", values), Layer("--config", {"train": {"epochs": "3"}})])


def test_every_problem_is_listed_at_once_with_its_key_path(values):
    values["train"]["epochs"] = "3"
    values["train"]["epoch"] = 3
    values["split"]["slices"] = 1.5
    values["prepare"]["intensity"] = {"kind": "window", "low": 5, "high": 1}
    values["train"]["sam_checkpoint"] = "sam.pth"
    values["report"] = None
    found = problems(values)
    for path in (
        "train.epochs: '3'",
        "train.epoch: unknown key",
        "split.slices: 1.5",
        "prepare.intensity: low (5)",
        "train.sam_checkpoint: 'sam.pth'",
        "report: None",
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


def test_a_case_id_that_yaml_takes_for_a_number_is_to_be_quoted(tmp_path):
    (mine,) = write(tmp_path, mine="split: {test: [002, '003', true]}\ndataset: {cases: [1.5]}")
    with pytest.raises(UserError) as caught:
        load([mine])
    hint = 'there; write it in quotes, such as "002").'
    expected = {
        "dataset.cases.0: 1.5": f"a number {hint}",
        "split.test.0: 2": f"a number {hint}",
        "split.test.2: True": f"true or false {hint}",
    }
    assert len(caught.value.problems) == len(expected)
    for problem, (start, end) in zip(caught.value.problems, expected.items(), strict=True):
        assert problem.startswith(f"{mine}: {start} is not allowed: ") and problem.endswith(end)


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
        ("search", "pruner", "hyperband", "search.pruner"),
    ],
)
def test_contradictions_are_refused(values, block, key, value, expected):
    values["search"] |= {"trials": 2, "pruner": "none", "validate_every": 0}
    values["split"]["slices"] = 0.5
    values[block][key] = value
    assert any(f": {expected}: " in line for line in problems(values))


def test_a_search_tunes_only_what_the_model_has(values):
    values["train"]["model"] = "unet"
    values["search"]["trials"] = 2
    found = [line.split(": ")[1] for line in problems(values)]
    assert found == ["search.space.lora_rank", "search.space.lambda_start"]
    values["search"]["space"] |= {"lora_rank": None, "lambda_start": None}
    validate(values, "")
    values["search"]["space"]["dice_weight"] = None
    assert any("search.trials: 2 trials, but nothing to tune" in line for line in problems(values))
    values["search"]["trials"] = 0
    validate(values, "")


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"image_size": 96, "encoder_size": 72}, "train.encoder_size: vit_tiny takes multiples of"),
        ({"encoder_size": 64}, "train.image_size: for vit_tiny that sees 64 px expected 16, 32 or"),
        ({"backbone": "litemedsam", "image_size": 80}, "train.image_size: litemedsam takes multi"),
    ],
)
def test_sides_that_decoders_cannot_reach_are_refused(values, changes, start):
    values["train"] |= changes
    assert any(line.startswith(f"params.yaml: {start}") for line in problems(values))


@pytest.mark.parametrize("image_size", [128, 256, 512])
def test_an_encoder_may_see_a_smaller_slice(values, image_size):
    fine = {"backbone": "litemedsam", "sam_checkpoint": "a.pth", "train_encoder": False}
    values["train"] |= fine | {"image_size": image_size, "encoder_size": 128}
    validate(values, "")


def test_embeddings_are_cached_for_a_frozen_encoder_alone(values):
    values["search"]["trials"] = 2
    values["train"]["cache_embeddings"] = 4
    found = [line.split("; set ")[1] for line in problems(values)]
    assert found == [
        "train.train_encoder to false, or this to 0.",
        "train.lora_rank to 0, or this to 0.",
        "search.space.lora_rank to null, or this to 0.",
    ]


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("unet", {"features": [8, 8]}, "features: expected 6 whole numbers from 1 to 4096"),
        ("sam_adapter", {"adapter_ratio": 1.5}, "adapter_ratio: expected a number from 0.001 to 1"),
        ("hsam", {"features": [8] * 6}, "features: hsam has no such option, it has none"),
    ],
)
def test_options_of_a_model_are_checked(values, model, options, message):
    values["train"] |= {"model": model, "model_options": options}
    values["search"]["trials"] = 0
    (line,) = problems(values)
    assert line.startswith(f"params.yaml: train.model_options.{message}")


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
